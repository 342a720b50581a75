/** Protobuf's wire format, as far as the hot messages need it. Whatever is cut off or means nothing throws RangeError. */

export const WIRE = { varint: 0, fixed64: 1, bytes: 2, startGroup: 3, endGroup: 4, fixed32: 5 } as const;

const MAX_VARINT_BYTES = 10;

export class WireReader {
  readonly #bytes: Uint8Array;
  #at: number;
  #end: number;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#at = 0;
    this.#end = bytes.length;
  }

  /** The next field's tag (number * 8 + wire type), or 0 at the end of the message. */
  tag(): number {
    if (this.#at >= this.#end) return 0;
    const tag = this.uint32();
    if (tag >>> 3 === 0) throw new RangeError('field number 0');
    return tag;
  }

  /** The low 32 bits, as protobuf reads a longer number into a shorter field. */
  uint32(): number {
    const bytes = this.#bytes;
    let value = 0;
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = this.#at < this.#end ? bytes[this.#at++] : undefined;
      if (byte === undefined) throw new RangeError('a number that is cut off');
      if (i < 5) value |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) return value >>> 0;
    }
    throw new RangeError('a number of more than ten bytes');
  }

  bool(): boolean {
    const bytes = this.#bytes;
    let bits = 0;
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = this.#at < this.#end ? bytes[this.#at++] : undefined;
      if (byte === undefined) throw new RangeError('a number that is cut off');
      bits |= byte & 0x7f;
      if (byte < 0x80) return bits !== 0;
    }
    throw new RangeError('a number of more than ten bytes');
  }

  fixed32(): number {
    const at = this.#take(4);
    const b = this.#bytes;
    return ((b[at] ?? 0) | ((b[at + 1] ?? 0) << 8) | ((b[at + 2] ?? 0) << 16) | ((b[at + 3] ?? 0) << 24)) >>> 0;
  }

  double(): number {
    const at = this.#take(8);
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset + at, 8).getFloat64(0, true);
  }

  /** A view of the message, no copy. */
  view(): Uint8Array {
    const length = this.uint32();
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** Enters an embedded message: `tag` ends with it. Gives what `leave` needs. */
  enter(): number {
    const length = this.uint32();
    if (length > this.#end - this.#at) throw new RangeError('a message that is cut off');
    const outer = this.#end;
    this.#end = this.#at + length;
    return outer;
  }

  leave(outer: number): void {
    this.#end = outer;
  }

  /** Passes over a field that is not known, or not in this form. */
  skip(tag: number): void {
    switch (tag & 7) {
      case WIRE.varint:
        this.bool();
        return;
      case WIRE.fixed64:
        this.#take(8);
        return;
      case WIRE.bytes:
        this.#take(this.uint32());
        return;
      case WIRE.fixed32:
        this.#take(4);
        return;
      case WIRE.startGroup:
        this.#skipGroup(tag >>> 3);
        return;
      default:
        throw new RangeError(`wire type ${tag & 7} of field ${tag >>> 3}`);
    }
  }

  #skipGroup(field: number): void {
    for (let tag = this.tag(); ; tag = this.tag()) {
      if (tag === 0) throw new RangeError(`group ${field} does not end`);
      if ((tag & 7) === WIRE.endGroup) {
        if (tag >>> 3 !== field) throw new RangeError(`group ${field} ends as ${tag >>> 3}`);
        return;
      }
      this.skip(tag);
    }
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.#end - at) throw new RangeError(`${length} bytes, of which ${this.#end - at} came`);
    this.#at += length;
    return at;
  }
}
