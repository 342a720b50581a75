/**
 * The enums of the hot messages as plain numbers: the generated ones bring all of protobuf-es along, which a lane's thread does without. `hot.test.ts` holds both
 * against each other.
 */
import type { ErrorReason as GeneratedReason } from '../gen/pagewake/v1/common_pb.js';
import type { Encoding as GeneratedEncoding } from '../gen/pagewake/v1/page_service_pb.js';

type Numbers<E> = { readonly [K in keyof E]: number };

/** With the names by number, as the generated ones have them. */
function named<E extends object>(numbers: Numbers<E>): E {
  const names = Object.entries<number>(numbers).map(([name, number]) => [number, name]);
  return Object.assign(Object.fromEntries(names), numbers) as E;
}

export const Encoding = named<typeof GeneratedEncoding>({ UNSPECIFIED: 0, ZERO: 1, RAW: 2, LZ4: 3, SPARSE: 4 });
export type Encoding = GeneratedEncoding;

export const ErrorReason = named<typeof GeneratedReason>({
  UNSPECIFIED: 0,
  UNSUPPORTED_VERSION: 1,
  UNKNOWN_VM: 2,
  VM_NOT_PAUSED: 4,
  BAD_TOKEN: 5,
  STALE_GENERATION: 6,
  SECOND_DESTINATION: 7,
  ALREADY_COMPLETED: 8,
  GEOMETRY_MISMATCH: 9,
  OUT_OF_RANGE: 10,
  CHECKSUM_MISMATCH: 11,
  MALFORMED_FRAME: 12,
  MEMORY_UNREADABLE: 13,
  NOT_TRAPPABLE: 14,
  MISSING_CAPABILITY: 15,
  BAD_HANDSHAKE: 16,
  UNKNOWN_MIGRATION: 17,
  MIGRATION_EXISTS: 18,
  WRONG_PHASE: 19,
  SOURCE_UNREACHABLE: 20,
  SOURCE_LOST: 21,
  VMM_EXITED: 22,
  CANCELLED: 23,
  INVALID_ARGUMENT: 24,
  PAGES_SERVED: 25,
  INTERNAL: 26,
  UNKNOWN_SESSION: 27,
});
export type ErrorReason = GeneratedReason;
