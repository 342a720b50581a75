/** What every thread of the destination agent uses of the agent kit, and the error reasons, under one name. */
export {
  AMONG_SEVERAL_US,
  BareClient,
  ErrorReason,
  formatAddress,
  messageOf,
  newSpanId,
  newSpanIdBytes,
  newTraceId,
  parseAddress,
  PagewakeError,
  reasonName,
  SEVERAL_FAULTS,
  spinUsOf,
  unixMs,
  UserError,
  type ClientLinkOptions,
} from '@pagewake/agent-kit/lane';
/** Types load nothing. */
export type { Life, Logger, StateFolder, Telemetry } from '@pagewake/agent-kit';
