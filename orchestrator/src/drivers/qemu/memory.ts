/** RAM backends as the agents are told of them. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { MemorySourceSchema } from '@pagewake/proto';
import type { RamBackend } from './inspect.ts';

/** For the source agent: a region a backend, each in its file. Backends as `judge` lets them pass. */
export function memoryOf(backends: readonly RamBackend[]): MessageInitShape<typeof MemorySourceSchema> {
  const regions = backends.map(({ path = '', pageSizeBytes, sizeBytes, fileOffset }) => ({
    geometry: { pageSizeBytes, pageCount: sizeBytes / pageSizeBytes },
    fileOffset: BigInt(fileOffset),
    path,
  }));
  return { kind: { case: 'file', value: { path: regions[0]?.path ?? '', regions } } };
}

/** For the destination agent: what the other QEMU's handshake calls the same regions, in the same order. */
export const regionNamesOf = (backends: readonly RamBackend[]): readonly string[] =>
  backends.map(({ path = '' }) => path);
