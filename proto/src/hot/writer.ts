/**
 * Writes protobuf backwards: the end of a message first. So a length is known when its turn comes, nothing is measured beforehand, and a head can be
 * put right before a payload that lies in the buffer already.
 */
export class BackwardWriter {
  readonly buffer: Buffer;
  /** Where what was written begins. */
  at: number;

  constructor(buffer: Buffer, at: number) {
    this.buffer = buffer;
    this.at = at;
  }

  /** A field of the default value is left out, as proto3 has it. */
  uint32(tag: number, value: number): void {
    if (value === 0) return;
    this.raw(value);
    this.raw(tag);
  }

  bool(tag: number, value: boolean): void {
    if (value) this.uint32(tag, 1);
  }

  fixed32(tag: number, value: number): void {
    if (value === 0) return;
    this.at -= 4;
    this.buffer.writeUInt32LE(value, this.at);
    this.raw(tag);
  }

  double(tag: number, value: number): void {
    if (Object.is(value, 0)) return;
    this.at -= 8;
    this.buffer.writeDoubleLE(value, this.at);
    this.raw(tag);
  }

  bytes(tag: number, value: Uint8Array): void {
    if (value.length === 0) return;
    this.at -= value.length;
    this.buffer.set(value, this.at);
    this.raw(value.length);
    this.raw(tag);
  }

  /** An embedded message that was just written: everything before `end`. */
  message(tag: number, end: number): void {
    this.raw(end - this.at);
    this.raw(tag);
  }

  /** A number as a varint. */
  raw(value: number): void {
    const length = value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : value < 0x1000_0000 ? 4 : 5;
    this.at -= length;
    let rest = value;
    for (let i = 0; i < length - 1; i++) {
      this.buffer[this.at + i] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.buffer[this.at + length - 1] = rest;
  }
}
