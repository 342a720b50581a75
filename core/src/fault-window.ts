/**
 * How far around a fault to ask: the page itself is on its way first, its neighbours right behind it. The kernel tells of no touch of a page that is
 * there, so what is known is where the next faults are: near an earlier window, the guest goes through memory and the next window is twice as
 * large; nowhere near, it shrinks, down to the page alone, so that random touches cost no more than they did.
 */

/** A guest that has just arrived touches its kernel and its processes, which lie in clusters. */
const FIRST_PAGES = 16;
/** Windows that are remembered. */
const REMEMBERED = 32;
/** However small a window was, a fault so close to it is near it. */
const NEAR_PAGES = 8;
/** So many windows in a row that no later fault came near: the next ones are half as large. */
const UNUSED_IN_A_ROW = 4;

export class FaultWindow {
  readonly #most: number;
  readonly #from = new Float64Array(REMEMBERED);
  readonly #end = new Float64Array(REMEMBERED);
  readonly #used = new Uint8Array(REMEMBERED);
  #next = 0;
  #remembered = 0;
  #size: number;
  #unused = 0;

  /** The window around the last fault, the fault in it: first page, and one beyond the last. */
  from = 0;
  end = 0;

  /** @param mostPages of one window; 1: no neighbours, ever */
  constructor(mostPages: number) {
    this.#most = mostPages;
    this.#size = Math.min(mostPages, FIRST_PAGES);
  }

  /** Pages of the next window. */
  get size(): number {
    return this.#size;
  }

  /** A fault at `page`, in a region of pages [`first`, `end`): `from` and `end` are its window from now on. */
  around(page: number, first: number, end: number): void {
    const near = this.#nearest(page);
    if (near >= 0) {
      this.#used[near] = 1;
      this.#unused = 0;
      this.#size = Math.min(this.#most, this.#size * 2);
    }
    this.#place(page, near);
    this.from = Math.max(first, this.from);
    this.end = Math.min(end, this.end);
    this.#remember();
  }

  /** Onwards where the guest goes through memory in one direction; else the aligned cluster that has the page. */
  #place(page: number, near: number): void {
    if (near >= 0 && page >= (this.#end[near] ?? 0)) {
      this.from = page;
    } else if (near >= 0 && page < (this.#from[near] ?? 0)) {
      this.from = page - this.#size + 1;
    } else {
      this.from = page - (page % this.#size);
    }
    this.end = this.from + this.#size;
  }

  /** The latest window that the page is in, or not further from than the window is long. */
  #nearest(page: number): number {
    for (let back = 1; back <= this.#remembered; back++) {
      const i = (this.#next - back + REMEMBERED) % REMEMBERED;
      const from = this.#from[i] ?? 0;
      const end = this.#end[i] ?? 0;
      const reach = Math.max(NEAR_PAGES, end - from);
      if (page >= from - reach && page < end + reach) return i;
    }
    return -1;
  }

  #remember(): void {
    const i = this.#next;
    if (this.#remembered < REMEMBERED) this.#remembered++;
    else if (this.#used[i] === 0 && ++this.#unused >= UNUSED_IN_A_ROW) {
      this.#unused = 0;
      this.#size = Math.max(1, Math.floor(this.#size / 2));
    }
    this.#from[i] = this.from;
    this.#end[i] = this.end;
    this.#used[i] = 0;
    this.#next = (i + 1) % REMEMBERED;
  }
}
