/**
 * A PagewakeError's two ways over gRPC: as a status with the typed detail in the `grpc-status-details-bin` trailer, and back.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { anyPack, anyUnpack } from '@bufbuild/protobuf/wkt';
import { Metadata, status, type ServerErrorResponse } from '@grpc/grpc-js';
import { ErrorDetailSchema, RichStatusSchema, type ErrorDetail } from '@pagewake/proto';
import { ErrorReason, messageOf, PagewakeError } from './errors.ts';

const DETAILS_TRAILER = 'grpc-status-details-bin';

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
