import { fileURLToPath } from 'node:url';
import { fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import {
  credentials,
  loadPackageDefinition,
  type ChannelCredentials,
  type ClientDuplexStream,
  type GrpcObject,
  type ServiceClientConstructor,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { protoPath as healthProto } from 'grpc-health-check';

type Reply = Record<string, unknown>;

function constructorAt(protoPath: string, ...path: string[]): ServiceClientConstructor {
  const root = loadPackageDefinition(loadSync(protoPath, { oneofs: true, enums: String }));
  const found = path.reduce<GrpcObject>((at, name) => at[name] as GrpcObject, root);
  return found as unknown as ServiceClientConstructor;
}

/** What the standard health service says of `service`: a status name, or the code of the error. */
export async function checkHealth(
  address: string,
  service: string,
  creds: ChannelCredentials = credentials.createInsecure(),
): Promise<string | number> {
  const Health = constructorAt(healthProto, 'grpc', 'health', 'v1', 'Health');
  const client = new Health(address, creds);
  try {
    return await new Promise((resolve) =>
      client['check']?.({ service }, (error: { code: number } | null, reply: { status: string }) =>
        resolve(error === null ? reply.status : error.code),
      ),
    );
  } finally {
    client.close();
  }
}

async function reflect(address: string, request: object): Promise<Reply> {
  const proto = fileURLToPath(
    new URL('../proto/grpc/reflection/v1/reflection.proto', import.meta.resolve('@grpc/reflection')),
  );
  const Reflection = constructorAt(proto, 'grpc', 'reflection', 'v1', 'ServerReflection');
  const client = new Reflection(address, credentials.createInsecure());
  try {
    return await new Promise((resolve, reject) => {
      const call = client['serverReflectionInfo']?.() as ClientDuplexStream<object, Reply>;
      call.on('data', (reply: Reply) => {
        resolve(reply);
        call.end();
      });
      call.on('error', reject);
      call.write(request);
    });
  } finally {
    client.close();
  }
}

/** Names of all services that reflection lists, sorted. */
export async function listServices(address: string): Promise<string[]> {
  const reply = await reflect(address, { listServices: '*' });
  const { service } = reply['listServicesResponse'] as { service: { name: string }[] };
  return service.map(({ name }) => name).sort();
}

/** Names of the files that reflection gives for a symbol, sorted. */
export async function filesContaining(address: string, symbol: string): Promise<string[]> {
  const reply = await reflect(address, { fileContainingSymbol: symbol });
  const { fileDescriptorProto } = reply['fileDescriptorResponse'] as { fileDescriptorProto: Buffer[] };
  return fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name).sort();
}
