/** A worker that clears every n-th page of a bitmap, one by one, as soon as the gate opens. */
import { parentPort, workerData } from 'node:worker_threads';
import { duplicateDescriptor, UserfaultBitmap } from '../ts/index.ts';

export interface ClearerData {
  readonly fd: number;
  readonly pages: number;
  readonly first: number;
  readonly step: number;
  /** Set to 1 to start: all at once. */
  readonly gate: Int32Array;
}

const { fd, pages, first, step, gate } = workerData as ClearerData;
const bitmap = UserfaultBitmap.adopt(duplicateDescriptor(fd), pages);
parentPort?.postMessage('ready');
Atomics.wait(gate, 0, 0);
for (let page = first; page < pages; page += step) bitmap.clear(page, 1);
bitmap.close();
