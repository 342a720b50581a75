/** What a lane's peer is told last on a bare connection: over gRPC it would be the status. */
import { ErrorReason, framed, PagewakeError } from '@pagewake/agent-kit/lane';
import { encodeLastWord, type LaneName } from '@pagewake/proto/hot';

/** An error as it is told to a peer: of a bug nothing but that it is one. */
export function toTold(error: unknown, onBug: (error: unknown) => void): PagewakeError {
  if (error instanceof PagewakeError) return error;
  onBug(error);
  return new PagewakeError(ErrorReason.INTERNAL, 'internal error; the log of the agent has the details');
}

export function lastWord(lane: LaneName, error: PagewakeError): Uint8Array {
  return framed(encodeLastWord(lane, error.toDetail()));
}
