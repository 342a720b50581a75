/** gRPC reflection (v1 and v1alpha) from protobuf-es descriptors, so that `grpcurl`-like clients need no .proto files. */
import { toBinary, type DescFile } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { Server } from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import type { AnyService } from '@pagewake/proto';
import { service as healthService } from 'grpc-health-check';

export function addReflection(server: Server, services: readonly AnyService[]): void {
  const files = new Map<string, Buffer>();
  for (const service of services) collect(service.file, files);
  // The reflection package reads nothing of a package definition but these bytes, one entry a root.
  const root = { format: 'Protocol Buffer 3 DescriptorProto', type: {}, fileDescriptorProtos: [...files.values()] };
  const health = healthService['Check']?.requestType;
  const definition = { pagewake: root, ...(health === undefined ? {} : { health }) };
  new ReflectionService(definition as ConstructorParameters<typeof ReflectionService>[0]).addToServer(server);
}

function collect(file: DescFile, into: Map<string, Buffer>): void {
  if (into.has(file.proto.name)) return;
  into.set(file.proto.name, Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)));
  for (const dependency of file.dependencies) collect(dependency, into);
}
