/** A worker that fills every page of a memory file that is not there yet by write(), from the end, so that it meets who fills them from the start. */
import { parentPort, workerData } from 'node:worker_threads';
import { MemoryFile } from '../ts/index.ts';
import { PAGE_BYTES, pageOf } from './support.ts';

export interface FillerData {
  readonly fd: number;
  readonly pages: number;
  /** Set to 1 to start. */
  readonly gate: Int32Array;
}

const { fd, pages, gate } = workerData as FillerData;
const file = MemoryFile.adopt(fd);
const guestMemfd = file.kind() === 'guest_memfd';
/** write() to a memfd fills what is there once more: with the same bytes, and nobody can tell who was first. */
const isThere = (page: number): boolean => !guestMemfd && file.dataRuns(page * PAGE_BYTES, PAGE_BYTES).length > 0;

parentPort?.postMessage('ready');
Atomics.wait(gate, 0, 0);
let written = 0;
for (let page = pages - 1; page >= 0; page--) {
  if (isThere(page)) continue;
  if (file.write(pageOf((page % 251) + 1), 0, PAGE_BYTES, page * PAGE_BYTES).kind === 'done') written++;
}
file.close();
parentPort?.postMessage(written);
