/** A lock that no crash leaves behind, from the native core. */
import { closeSync } from 'node:fs';
import { lockFile } from '@pagewake/native';

/** @returns what gives it back; throws `code` EAGAIN where another process has it */
export function holdLock(path: string): () => void {
  const fd = lockFile(path);
  return () => closeSync(fd);
}
