/** What the main thread alone uses of it: each of these loads packages that a lane’s thread does without. */
export {
  aborted,
  commonFields,
  fromServiceError,
  hexId,
  openChannel,
  option,
  requireOwnFolder,
  runProgram,
  serverFields,
  SpanKind,
  SpanStatusCode,
  startServer,
  startTelemetry,
  StateFolder,
  toServiceError,
} from '@pagewake/agent-kit';
