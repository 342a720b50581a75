/**
 * Firecracker's secret-free branch behind its array: a word in plain text, then fault messages as JSON objects back to back. Its newer builds frame them
 * (a length and a body that is no JSON); those are refused.
 */
import { z } from 'zod';
import type { AgentMessage, ResolvedPage } from '../channel.ts';
import { check, endOfJson, HandshakeError, parseJson } from '../checked.ts';
import type { GuestLayout } from '../layout.ts';
import type { Heard, VmmCodec } from './codec.ts';

const PLAIN = 'no_exitless_apf';
const EXITLESS = 'exitless_apf:';
/** A fault is about 60 bytes. */
const MAX_OBJECT_CHARS = 4096;
/** A vCPU waits for its answer, so only a VMM that never reads comes here. */
const MAX_WAITING = 65_536;

const faultRequest = z.looseObject({
  vcpu: z.int().nonnegative(),
  offset: z.int().nonnegative(),
  flags: z.int().nonnegative(),
  token: z.int().nonnegative().nullable(),
});
type FaultRequest = z.output<typeof faultRequest>;

export class SecretFreeCodec implements VmmCodec {
  readonly #layout: GuestLayout;
  readonly #objects = new ObjectSplitter();
  /** Not answered yet, by numbers of our own: it has none. */
  readonly #waiting = new Map<number, FaultRequest>();
  #nextId = 0;
  #whole = false;

  constructor(layout: GuestLayout) {
    this.#layout = layout;
  }

  get answersLate(): boolean {
    return this.#whole;
  }

  opening(text: string): number | undefined {
    const said = text.trimStart();
    if (said.startsWith(PLAIN)) return text.length - said.length + PLAIN.length;
    if (said.startsWith(EXITLESS))
      throw new HandshakeError(
        'this Firecracker wants exitless asynchronous page faults, which the agent does not serve; start it without an apf.socket in its folder, so that it says no_exitless_apf',
      );
    if (PLAIN.startsWith(said) || EXITLESS.startsWith(said)) return undefined;
    throw new HandshakeError(
      `a secret-free Firecracker says ${PLAIN} behind its regions; this one says ${JSON.stringify(said.slice(0, 40))}`,
    );
  }

  read(text: string): Heard {
    const faults = this.#objects.push(text).map((object) => this.#note(object));
    if (!this.#whole) return { messages: faults.length > 0 ? [{ type: 'stage2_faults', faults }] : [], answer: '' };
    return { messages: [], answer: this.#answerAll() };
  }

  write(message: AgentMessage): string {
    switch (message.type) {
      case 'all_resolved':
        return message.pages.map((page) => this.#answer(page)).join('');
      case 'done':
        // It has no word for that. A request that crossed the last page's arrival waits for its answer all the same.
        this.#whole = true;
        return this.#answerAll();
      default:
        return '';
    }
  }

  #note(object: string) {
    const what = 'a fault message';
    const request = check(faultRequest, parseJson(object, what), what);
    if (!this.#layout.atOffset(request.offset))
      throw new HandshakeError(`${what}: offset ${request.offset} is no page that the VMM handed over`);
    if (this.#waiting.size >= MAX_WAITING)
      throw new HandshakeError(`${MAX_WAITING} fault messages wait for an answer; no VMM has so many vCPUs`);
    const id = this.#nextId++;
    this.#waiting.set(id, request);
    const { vcpu, offset, flags } = request;
    return { id, vcpu, offset, flags };
  }

  #answer({ id, offset, len }: ResolvedPage): string {
    const request = this.#waiting.get(id);
    // Answered already, all at once.
    if (!request) return '';
    this.#waiting.delete(id);
    const { vcpu, flags, token } = request;
    // Never `zero`: what is zero was written as such, or is there by itself.
    return JSON.stringify({ vcpu, offset, len, flags, token, zero: false });
  }

  #answerAll(): string {
    const pages = [...this.#waiting].map(([id, { offset }]): ResolvedPage => {
      const place = this.#layout.atOffset(offset);
      const len = place?.region.pageSizeBytes ?? 1;
      return { id, offset: offset - (offset % len), len };
    });
    return pages.map((page) => this.#answer(page)).join('');
  }
}

/** A frame's length may begin with this bracket too, but is followed by zeros: waiting for its end would be for ever. */
const OBJECT_BEGINS = /^\{\s*(?:["}]|$)/;

/** Cuts a stream into JSON objects, which nothing separates. */
class ObjectSplitter {
  #rest = '';
  #first = true;

  /** @throws HandshakeError where something else comes, or an object does not end in time */
  push(text: string): string[] {
    let rest = (this.#rest + text).trimStart();
    const objects: string[] = [];
    while (rest !== '') {
      if (!OBJECT_BEGINS.test(rest))
        throw new HandshakeError(this.#first ? FRAMED : `no fault message: ${quote(rest)}`);
      const end = endOfJson(rest);
      if ((end ?? rest.length) > MAX_OBJECT_CHARS)
        throw new HandshakeError(`a fault message is longer than ${MAX_OBJECT_CHARS} bytes: ${quote(rest)}`);
      if (end === undefined) break;
      objects.push(rest.slice(0, end));
      this.#first = false;
      rest = rest.slice(end).trimStart();
    }
    this.#rest = rest;
    return objects;
  }
}

const quote = (text: string): string => `it begins with ${JSON.stringify(text.slice(0, 40))}`;

const FRAMED =
  'this Firecracker frames its fault messages (a length and a bitcode body), which the agent does not read; use a build of the secret-free branch that sends them as JSON';
