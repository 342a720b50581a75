/**
 * The payload of a sparse frame: the pages that are not all zeros, one behind the other, then which ones are: pairs of first page within the frame and
 * count, ascending and not touching, and their number; each number 32 bits, little-endian. One message then tells of all the zeros of a range, however
 * often they change with data. The table is at the end so that pages need only move forward, and the first of them does not.
 */

const NUMBER_BYTES = 4;
const PAIR_BYTES = 2 * NUMBER_BYTES;

/**
 * Makes a payload of the pages in place. There is always room: the table takes less than the pages that go.
 * @param zeros at least one run, and not every page
 * @returns how long it is
 */
export function squeeze(bytes: Uint8Array, pageCount: number, pageSizeBytes: number, zeros: Uint32Array): number {
  let length = 0;
  let page = 0;
  for (let i = 0; i <= zeros.length; i += 2) {
    const end = zeros[i] ?? pageCount;
    if (length < page * pageSizeBytes) bytes.copyWithin(length, page * pageSizeBytes, end * pageSizeBytes);
    length += (end - page) * pageSizeBytes;
    page = end + (zeros[i + 1] ?? 0);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const number of zeros) {
    view.setUint32(length, number, true);
    length += NUMBER_BYTES;
  }
  view.setUint32(length, zeros.length / 2, true);
  return length + NUMBER_BYTES;
}

/** The runs of zeros of such a payload, or undefined where it is none for so many pages. */
export function zerosOf(payload: Uint8Array, pageCount: number, pageSizeBytes: number): Uint32Array | undefined {
  if (payload.length < NUMBER_BYTES + PAIR_BYTES) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const runs = view.getUint32(payload.length - NUMBER_BYTES, true);
  const tableAt = payload.length - NUMBER_BYTES - runs * PAIR_BYTES;
  if (runs === 0 || runs > pageCount || tableAt < 0) return undefined;
  const zeros = new Uint32Array(2 * runs);
  let zeroPages = 0;
  let least = 0;
  for (let i = 0; i < zeros.length; i += 2) {
    const first = view.getUint32(tableAt + i * NUMBER_BYTES, true);
    const count = view.getUint32(tableAt + (i + 1) * NUMBER_BYTES, true);
    if (first < least || count === 0 || first + count > pageCount) return undefined;
    zeros[i] = first;
    zeros[i + 1] = count;
    zeroPages += count;
    least = first + count + 1;
  }
  return (pageCount - zeroPages) * pageSizeBytes === tableAt ? zeros : undefined;
}
