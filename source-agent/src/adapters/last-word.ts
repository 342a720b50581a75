/** What a lane's peer is told last on a bare connection: over gRPC it would be the status. */
import { create, toBinary } from '@bufbuild/protobuf';
import { ErrorReason, framed, PagewakeError } from '@pagewake/agent-kit';
import { BulkResponseSchema, FaultsResponseSchema } from '@pagewake/proto';

/** An error as it is told to a peer: of a bug nothing but that it is one. */
export function toTold(error: unknown, onBug: (error: unknown) => void): PagewakeError {
  if (error instanceof PagewakeError) return error;
  onBug(error);
  return new PagewakeError(ErrorReason.INTERNAL, 'internal error; the log of the agent has the details');
}

/** Both lanes' responses have an `error`. */
export function lastWord(
  schema: typeof BulkResponseSchema | typeof FaultsResponseSchema,
  error: PagewakeError,
): Uint8Array {
  const detail = { error: error.toDetail() };
  return framed(
    schema === BulkResponseSchema
      ? toBinary(BulkResponseSchema, create(BulkResponseSchema, detail))
      : toBinary(FaultsResponseSchema, create(FaultsResponseSchema, detail)),
  );
}
