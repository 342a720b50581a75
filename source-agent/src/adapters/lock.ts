import { closeSync } from 'node:fs';
import { lockFile } from '@pagewake/native';

/** Takes the lock on a file; returns what gives it back. Throws `code` EAGAIN where another agent has it. */
export function lock(path: string): () => void {
  const fd = lockFile(path);
  return () => closeSync(fd);
}
