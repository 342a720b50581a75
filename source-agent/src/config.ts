import { commonFields, option, serverFields, type ProgramSpec } from '@pagewake/agent-kit';
import { z } from 'zod';

export const COMPRESSIONS = ['auto', 'off', 'lz4'] as const;
export const LANES = ['direct', 'grpc'] as const;

const schema = z.object({
  listen: option(z.string().min(1).default('127.0.0.1:7701'), 'where to serve gRPC', 'host:port'),
  lanes: option(
    z.enum(LANES).default('direct'),
    'how pages go; direct: on ports of their own beside gRPC (--fault-port, --bulk-port), which is faster; grpc: everything over gRPC on the one port of --listen',
    'way',
  ),
  faultPort: option(
    z.number().int().min(0).max(65_535).default(0),
    'port of demand faults, on the host of --listen; 0: any that is free. Destinations that cannot reach it use gRPC',
    'port',
  ),
  bulkPort: option(z.number().int().min(0).max(65_535).default(0), 'port of the bulk lane, in the same way', 'port'),
  compression: option(
    z.enum(COMPRESSIONS).default('auto'),
    'LZ4 on the bulk lane; auto: where it gets more memory over this link',
    'when',
  ),
  faultCompression: option(
    z.boolean().default(false),
    'LZ4 on the demand lane too; pays only where the link is slower than some 100 MB/s',
  ),
  stateDir: option(
    z.string().min(1).optional(),
    'folder of what a restarted agent needs to serve on; made if it is missing in a folder that is there; best on a tmpfs; default: none, a restarted agent knows nothing',
    'dir',
  ),
  faultSpinUs: option(
    z.number().int().min(0).max(100_000).optional(),
    'how long to stay awake after a fault, for the next one: shorter stalls for a core that is busy as long as faults come, and yields to whoever else can run; 0: only among several faults at once; default: 200 where there are four cores or more, else 0',
    'us',
  ),
  ...serverFields,
  ...commonFields,
});

export type SourceConfig = z.output<typeof schema>;

export const SOURCE_PROGRAM: ProgramSpec<typeof schema> = {
  name: 'pagewake serve-source',
  summary: 'Serves the memory of paused VMs to destination agents, page by page on demand and the rest in bulk.',
  schema,
  examples: [
    'pagewake serve-source',
    'pagewake serve-source --listen 10.0.0.1:7701 --tls-cert agent.pem --tls-key agent.key --tls-ca fleet.pem',
  ],
};
