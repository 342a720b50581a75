/**
 * One error class for everything that a caller of pagewake may be told, and its two ways over gRPC: as a status with the
 * typed detail in the `grpc-status-details-bin` trailer, and back. Programs tell errors apart by `reason`, never by text.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { anyPack, anyUnpack } from '@bufbuild/protobuf/wkt';
import { Metadata, status, type ServerErrorResponse } from '@grpc/grpc-js';
import { ErrorDetailSchema, ErrorReason, RichStatusSchema, type ErrorDetail } from '@pagewake/proto';

/** Re-exported for modules that name reasons but have no business with the rest of the contract. */
export { ErrorReason } from '@pagewake/proto';

const DETAILS_TRAILER = 'grpc-status-details-bin';

/** The gRPC code that each reason travels under, for clients that know nothing of pagewake. */
const CODE_OF_REASON: Readonly<Record<ErrorReason, status>> = {
  [ErrorReason.UNSPECIFIED]: status.UNKNOWN,
  [ErrorReason.UNSUPPORTED_VERSION]: status.FAILED_PRECONDITION,
  [ErrorReason.UNKNOWN_VM]: status.NOT_FOUND,
  [ErrorReason.VM_NOT_PAUSED]: status.FAILED_PRECONDITION,
  [ErrorReason.BAD_TOKEN]: status.UNAUTHENTICATED,
  [ErrorReason.STALE_GENERATION]: status.FAILED_PRECONDITION,
  [ErrorReason.SECOND_DESTINATION]: status.FAILED_PRECONDITION,
  [ErrorReason.ALREADY_COMPLETED]: status.FAILED_PRECONDITION,
  [ErrorReason.GEOMETRY_MISMATCH]: status.FAILED_PRECONDITION,
  [ErrorReason.OUT_OF_RANGE]: status.OUT_OF_RANGE,
  [ErrorReason.CHECKSUM_MISMATCH]: status.DATA_LOSS,
  [ErrorReason.MALFORMED_FRAME]: status.DATA_LOSS,
  [ErrorReason.MEMORY_UNREADABLE]: status.DATA_LOSS,
  [ErrorReason.NOT_TRAPPABLE]: status.FAILED_PRECONDITION,
  [ErrorReason.MISSING_CAPABILITY]: status.FAILED_PRECONDITION,
  [ErrorReason.BAD_HANDSHAKE]: status.INVALID_ARGUMENT,
  [ErrorReason.UNKNOWN_MIGRATION]: status.NOT_FOUND,
  [ErrorReason.MIGRATION_EXISTS]: status.ALREADY_EXISTS,
  [ErrorReason.WRONG_PHASE]: status.FAILED_PRECONDITION,
  [ErrorReason.SOURCE_UNREACHABLE]: status.UNAVAILABLE,
  [ErrorReason.SOURCE_LOST]: status.UNAVAILABLE,
  [ErrorReason.VMM_EXITED]: status.ABORTED,
  [ErrorReason.CANCELLED]: status.CANCELLED,
  [ErrorReason.INVALID_ARGUMENT]: status.INVALID_ARGUMENT,
  [ErrorReason.PAGES_SERVED]: status.FAILED_PRECONDITION,
  [ErrorReason.INTERNAL]: status.INTERNAL,
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
    return create(ErrorDetailSchema, { reason: this.reason, message: this.message, metadata: { ...this.metadata } });
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

/**
 * The status for whatever a handler threw. What is not a PagewakeError is a bug: the caller is told INTERNAL and
 * no more, `onBug` gets the error with its stack.
 */
export function toServiceError(error: unknown, onBug?: (error: unknown) => void): Partial<ServerErrorResponse> {
  if (!(error instanceof PagewakeError)) onBug?.(error);
  const known =
    error instanceof PagewakeError
      ? error
      : new PagewakeError(ErrorReason.INTERNAL, 'internal error; the log of the agent has the details');
  const rich = create(RichStatusSchema, {
    code: known.code,
    message: known.message,
    details: [anyPack(ErrorDetailSchema, known.toDetail())],
  });
  const metadata = new Metadata();
  metadata.set(DETAILS_TRAILER, Buffer.from(toBinary(RichStatusSchema, rich)));
  return { code: known.code, details: known.message, metadata };
}

interface StatusLike {
  readonly code: status;
  readonly details?: string;
  readonly metadata?: Metadata;
}

function isStatusLike(error: unknown): error is StatusLike {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'number';
}

/** The typed detail in a status' trailers, where there is one that can be read. */
function detailOf(trailers: Metadata | undefined): ErrorDetail | undefined {
  const value = trailers?.get(DETAILS_TRAILER)[0];
  if (!Buffer.isBuffer(value)) return undefined;
  try {
    for (const any of fromBinary(RichStatusSchema, value).details) {
      const detail = anyUnpack(any, ErrorDetailSchema);
      if (detail !== undefined) return detail;
    }
  } catch {
    // Not ours: the plain status says all that can be known.
  }
  return undefined;
}

/**
 * What a failed call means. Without a typed detail (a proxy answered, the link is down, the peer is no pagewake agent)
 * the reason is `fallback`, except that a cancelled call is CANCELLED; the code is the one that came.
 */
export function fromServiceError(error: unknown, fallback = ErrorReason.UNSPECIFIED): PagewakeError {
  if (error instanceof PagewakeError) return error;
  if (!isStatusLike(error)) return new PagewakeError(fallback, messageOf(error), {}, { cause: error });
  const detail = detailOf(error.metadata);
  const code = error.code;
  if (detail !== undefined) {
    return new PagewakeError(detail.reason, detail.message, detail.metadata, { code, cause: error });
  }
  const reason = code === status.CANCELLED ? ErrorReason.CANCELLED : fallback;
  const text = error.details === undefined || error.details === '' ? messageOf(error) : error.details;
  return new PagewakeError(reason, text, { grpc_code: status[code] ?? String(code) }, { code, cause: error });
}

/** True for failures of the way to the peer, after which the same call may be tried again. */
export function isUnreachable(error: PagewakeError): boolean {
  return error.code === status.UNAVAILABLE || error.code === status.DEADLINE_EXCEEDED;
}
