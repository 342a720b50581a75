/**
 * One error class for everything that a caller of pagewake may be told. Programs tell errors apart by `reason`, never by text. Its two ways over gRPC
 * are in service-errors.ts: a lane's thread has errors and no gRPC.
 */
import type { status } from '@grpc/grpc-js';
import type { ErrorDetail } from '@pagewake/proto';
import { ErrorReason } from '@pagewake/proto/hot';

/** Re-exported for modules that name reasons but have no business with the rest of the contract. */
export { ErrorReason } from '@pagewake/proto/hot';

/** gRPC's own numbers, as many as are used: importing them would load all of grpc-js. */
const CODE = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as unknown as typeof status;

/** The gRPC code that each reason travels under, for clients that know nothing of pagewake. */
const CODE_OF_REASON: Readonly<Record<ErrorReason, status>> = {
  [ErrorReason.UNSPECIFIED]: CODE.UNKNOWN,
  [ErrorReason.UNSUPPORTED_VERSION]: CODE.FAILED_PRECONDITION,
  [ErrorReason.UNKNOWN_VM]: CODE.NOT_FOUND,
  [ErrorReason.VM_NOT_PAUSED]: CODE.FAILED_PRECONDITION,
  [ErrorReason.BAD_TOKEN]: CODE.UNAUTHENTICATED,
  [ErrorReason.STALE_GENERATION]: CODE.FAILED_PRECONDITION,
  [ErrorReason.SECOND_DESTINATION]: CODE.FAILED_PRECONDITION,
  [ErrorReason.ALREADY_COMPLETED]: CODE.FAILED_PRECONDITION,
  [ErrorReason.GEOMETRY_MISMATCH]: CODE.FAILED_PRECONDITION,
  [ErrorReason.OUT_OF_RANGE]: CODE.OUT_OF_RANGE,
  [ErrorReason.CHECKSUM_MISMATCH]: CODE.DATA_LOSS,
  [ErrorReason.MALFORMED_FRAME]: CODE.DATA_LOSS,
  [ErrorReason.MEMORY_UNREADABLE]: CODE.DATA_LOSS,
  [ErrorReason.NOT_TRAPPABLE]: CODE.FAILED_PRECONDITION,
  [ErrorReason.MISSING_CAPABILITY]: CODE.FAILED_PRECONDITION,
  [ErrorReason.BAD_HANDSHAKE]: CODE.INVALID_ARGUMENT,
  [ErrorReason.UNKNOWN_MIGRATION]: CODE.NOT_FOUND,
  [ErrorReason.MIGRATION_EXISTS]: CODE.ALREADY_EXISTS,
  [ErrorReason.WRONG_PHASE]: CODE.FAILED_PRECONDITION,
  [ErrorReason.SOURCE_UNREACHABLE]: CODE.UNAVAILABLE,
  [ErrorReason.SOURCE_LOST]: CODE.UNAVAILABLE,
  [ErrorReason.VMM_EXITED]: CODE.ABORTED,
  [ErrorReason.CANCELLED]: CODE.CANCELLED,
  [ErrorReason.INVALID_ARGUMENT]: CODE.INVALID_ARGUMENT,
  [ErrorReason.PAGES_SERVED]: CODE.FAILED_PRECONDITION,
  [ErrorReason.INTERNAL]: CODE.INTERNAL,
  [ErrorReason.UNKNOWN_SESSION]: CODE.NOT_FOUND,
};

export class PagewakeError extends Error {
  override readonly name = 'PagewakeError';
  readonly reason: ErrorReason;
  /** What the reason is about: vm_id, expected, found, … */
  readonly metadata: Readonly<Record<string, string>>;
  /** The gRPC status code; of a foreign status the one that came. */
  readonly code: status;

  constructor(
    reason: ErrorReason,
    message: string,
    metadata: Readonly<Record<string, string | number>> = {},
    options: ErrorOptions & { readonly code?: status } = {},
  ) {
    super(message, options);
    this.reason = reason;
    this.metadata = Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, String(value)]));
    this.code = options.code ?? CODE_OF_REASON[reason];
  }

  /** The name as in the `.proto`, without its prefix: "UNKNOWN_VM". */
  get reasonName(): string {
    return reasonName(this.reason);
  }

  toDetail(): ErrorDetail {
    const { reason, message, metadata } = this;
    return { $typeName: 'pagewake.v1.ErrorDetail', reason, message, metadata: { ...metadata } };
  }
}

/** An error whose message is all that the user of a program needs: what is wrong and what to do. */
export class UserError extends Error {
  override readonly name: string = 'UserError';
  readonly exitCode: number;

  constructor(message: string, exitCode = 1, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

export function reasonName(reason: ErrorReason): string {
  return ErrorReason[reason] ?? `reason ${String(reason)}`;
}

/** `message` of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** True for failures of the way to the peer, after which the same call may be tried again. */
export function isUnreachable(error: PagewakeError): boolean {
  return error.code === CODE.UNAVAILABLE || error.code === CODE.DEADLINE_EXCEEDED;
}
