import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, equals, fromBinary, toBinary, type DescMessage, type MessageShape } from '@bufbuild/protobuf';
import * as fc from 'fast-check';
import {
  BulkRequestSchema,
  BulkResponseSchema,
  Encoding as GeneratedEncoding,
  FaultsRequestSchema,
  FaultsResponseSchema,
  PageService,
} from '../gen/pagewake/v1/page_service_pb.js';
import {
  decodeBulkRequest,
  decodeBulkResponse,
  decodeFaultsRequest,
  decodeFaultsResponse,
  encodeBulkRequest,
  encodeFaultsRequest,
  encodeLastWord,
  Encoding,
  ErrorReason,
  GRPC_PATH,
  HEAD_ROOM_BYTES,
  putFrameHead,
} from './index.ts';
import { ErrorDetailSchema, ErrorReason as GeneratedReason } from '../gen/pagewake/v1/common_pb.js';
import { methodPath } from '../glue.ts';

const u32 = fc.oneof(fc.constant(0), fc.nat(300), fc.integer({ min: 0, max: 0xffff_ffff }));
const bytes = fc.uint8Array({ maxLength: 300 });
const maybe = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(of, { nil: undefined });
const given = <T extends object>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<Partial<T>> =>
  fc.record(fields, { requiredKeys: [] }) as fc.Arbitrary<Partial<T>>;

const trace = given({ traceId: bytes, spanId: bytes, flags: u32 });
const fault = given({ faultId: u32, region: u32, page: u32, pageCount: u32, trace: maybe(trace) });
const frame = given({
  region: u32,
  firstPage: u32,
  pageCount: u32,
  encoding: fc.integer({ min: 0, max: 5 }),
  payload: bytes,
  checksum: u32,
  timings: maybe(given({ queueNs: u32, readNs: u32, encodeNs: u32, receivedAtMs: fc.double({ noNaN: true }) })),
});

const text = fc.string({ unit: 'binary' });
const told = given({ reason: fc.integer({ min: 0, max: 40 }), message: text, metadata: fc.dictionary(text, text) });

/** Every hot message: how to make one, and who reads it by hand. */
const MESSAGES = [
  [FaultsRequestSchema, given({ session: bytes, faults: fc.array(fault) }), decodeFaultsRequest],
  [
    BulkRequestSchema,
    given({
      session: bytes,
      rangeId: u32,
      range: maybe(given({ region: u32, firstPage: u32, pageCount: u32 })),
      trace: maybe(trace),
      sparse: fc.boolean(),
    }),
    decodeBulkRequest,
  ],
  [FaultsResponseSchema, given({ faultId: u32, frame: maybe(frame), error: maybe(told) }), decodeFaultsResponse],
  [
    BulkResponseSchema,
    given({ rangeId: u32, frame: maybe(frame), rangeDone: fc.boolean(), error: maybe(told) }),
    decodeBulkResponse,
  ],
] as unknown as readonly [DescMessage, fc.Arbitrary<never>, (bytes: Uint8Array) => unknown][];

/** One field as bytes, of a number and wire type that may or may not mean something. */
const field = fc
  .tuple(
    fc.integer({ min: 1, max: 40 }),
    fc.constantFrom(0, 1, 2, 5),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    bytes,
  )
  .map(([number, type, value, content]) => {
    const head = varint(BigInt(number * 8 + type));
    if (type === 0) return [...head, ...varint(value)];
    if (type === 2) return [...head, ...varint(BigInt(content.length)), ...content];
    return [...head, ...new Uint8Array(type === 1 ? 8 : 4).fill(7)];
  });

function varint(value: bigint): number[] {
  const out: number[] = [];
  let rest = value;
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  return [...out, Number(rest)];
}

/** Unknown fields are kept by protobuf-es and dropped here. */
const known = <D extends DescMessage>(schema: D, wire: Uint8Array): MessageShape<D> =>
  fromBinary(schema, wire, { readUnknownFields: false });

for (const [schema, content, decode] of MESSAGES) {
  test(`${schema.name}: what protobuf-es wrote is read alike`, () => {
    fc.assert(
      fc.property(content, (init) => {
        const wire = toBinary(schema, create(schema, init));
        assert(equals(schema, decode(wire) as MessageShape<DescMessage>, known(schema, wire)));
      }),
    );
  });

  test(`${schema.name}: fields may be unknown, may come twice and in any order`, () => {
    fc.assert(
      fc.property(fc.array(content, { minLength: 1, maxLength: 3 }), fc.array(field), (inits, strange) => {
        const numbers = schema.fields.map((f) => f.number);
        const unknown = strange.filter((f) => !numbers.includes((f[0] ?? 0) >>> 3));
        // Whole messages behind each other are one message, whose later fields win: every order of fields comes up.
        const parts = inits.flatMap((init) => [
          ...(unknown.shift() ?? []),
          ...toBinary(schema, create(schema, init)),
          ...(unknown.pop() ?? []),
        ]);
        const wire = Uint8Array.from(parts);
        assert(equals(schema, decode(wire) as MessageShape<DescMessage>, known(schema, wire)));
      }),
    );
  });

  test(`${schema.name}: any bytes are read or refused with RangeError, and never beyond their end`, () => {
    const noise = fc.array(fc.oneof(field, fc.array(fc.nat(255), { maxLength: 4 })), { maxLength: 8 });
    fc.assert(
      fc.property(noise, (parts) => {
        const wire = Uint8Array.from(parts.flat());
        try {
          decode(wire);
        } catch (error) {
          assert(error instanceof RangeError, String(error));
        }
      }),
    );
  });

  test(`${schema.name}: cut off anywhere inside a field it is refused`, () => {
    const inside = Uint8Array.from([...varint(15n * 8n + 2n), 5, 1, 2, 3, 4]);
    assert.throws(() => decode(inside), RangeError);
    assert.throws(() => decode(Uint8Array.from([0x80])), RangeError);
  });
}

const asked = fc.record({ traceId: bytes, spanId: bytes, flags: u32 });

test('FaultsRequest: what is written by hand is what protobuf-es writes', () => {
  const faults = fc.array(fc.record({ faultId: u32, region: u32, page: u32, pageCount: u32, trace: asked }));
  fc.assert(
    fc.property(bytes, faults, (session, list) => {
      const message = { session, faults: list };
      const expected = toBinary(FaultsRequestSchema, create(FaultsRequestSchema, message));
      assert.deepEqual(Uint8Array.from(encodeFaultsRequest(message)), expected);
    }),
  );
});

test('BulkRequest: what is written by hand is what protobuf-es writes', () => {
  const run = fc.record({ region: u32, firstPage: u32, pageCount: u32 });
  fc.assert(
    fc.property(bytes, u32, maybe(run), maybe(asked), fc.boolean(), (session, rangeId, range, context, sparse) => {
      const message = {
        session,
        rangeId,
        sparse,
        ...(range === undefined ? {} : { range }),
        ...(context === undefined ? {} : { trace: context }),
      };
      const expected = toBinary(BulkRequestSchema, create(BulkRequestSchema, message));
      assert.deepEqual(Uint8Array.from(encodeBulkRequest(message)), expected);
    }),
  );
});

test('a frame written by hand is read by protobuf-es, its payload untouched and in place', () => {
  const head = fc.record({
    id: u32,
    done: fc.boolean(),
    region: u32,
    firstPage: u32,
    pageCount: u32,
    encoding: fc.integer({ min: 0, max: 3 }),
    checksum: u32,
    queueNs: u32,
    readNs: u32,
    encodeNs: u32,
    receivedAtMs: fc.double({ noNaN: true }),
  });
  fc.assert(
    fc.property(head, bytes, (fields, payload) => {
      const buffer = Buffer.alloc(HEAD_ROOM_BYTES + payload.length);
      buffer.set(payload, HEAD_ROOM_BYTES);
      const start = putFrameHead(buffer, HEAD_ROOM_BYTES, payload.length, fields);
      const { id, done, queueNs, readNs, encodeNs, receivedAtMs, ...frameFields } = fields;
      const timings = { queueNs, readNs, encodeNs, receivedAtMs };
      const expected = create(BulkResponseSchema, {
        rangeId: id,
        rangeDone: done,
        frame: { ...frameFields, payload, timings },
      });
      const wire = buffer.subarray(start);
      assert(equals(BulkResponseSchema, fromBinary(BulkResponseSchema, wire), expected));
      assert(equals(BulkResponseSchema, decodeBulkResponse(wire), expected));
    }),
  );
});

test('a last word by hand is a response with that error and nothing else', () => {
  fc.assert(
    fc.property(told, (init) => {
      const error = create(ErrorDetailSchema, init);
      const faults = create(FaultsResponseSchema, { error });
      assert(equals(FaultsResponseSchema, fromBinary(FaultsResponseSchema, encodeLastWord('faults', error)), faults));
      const bulk = create(BulkResponseSchema, { error });
      assert(equals(BulkResponseSchema, fromBinary(BulkResponseSchema, encodeLastWord('bulk', error)), bulk));
    }),
  );
});

test('the longest head fits its room', () => {
  const most = 0xffff_ffff;
  const head = {
    id: most,
    done: true,
    region: most,
    firstPage: most,
    pageCount: most,
    encoding: 3,
    checksum: most,
    queueNs: most,
    readNs: most,
    encodeNs: most,
    receivedAtMs: 1.5,
  };
  const payloadBytes = 16 * 1024 * 1024;
  const start = putFrameHead(Buffer.alloc(HEAD_ROOM_BYTES), HEAD_ROOM_BYTES, payloadBytes, head);
  assert(start >= 0, `${start}`);
});

test('the enums and paths by hand are those of the contract', () => {
  assert.deepEqual({ ...Encoding }, { ...GeneratedEncoding });
  assert.deepEqual({ ...ErrorReason }, { ...GeneratedReason });
  const { faults, bulk } = PageService.method;
  assert.deepEqual(GRPC_PATH, { faults: methodPath(PageService, faults), bulk: methodPath(PageService, bulk) });
});
