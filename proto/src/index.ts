export * from './gen/pagewake/v1/common_pb.js';
export * from './gen/pagewake/v1/migration_service_pb.js';
export * from './gen/pagewake/v1/page_service_pb.js';
export * from './gen/pagewake/v1/source_service_pb.js';
export * from './glue.ts';
export * from './hot/index.ts';
/** hot/ has them as well, without protobuf-es. */
export { ErrorReason } from './gen/pagewake/v1/common_pb.js';
export { Encoding } from './gen/pagewake/v1/page_service_pb.js';
