/** The destination agent's settings: one schema for flags, environment and file. */
import { z } from 'zod';
import { commonFields, option, serverFields } from './main-kit.ts';

export const destAgentConfig = z.object({
  listen: option(z.string().min(1).default('127.0.0.1:7702'), 'where to serve gRPC', 'host:port'),
  vmmSocketDir: option(
    z.string().min(1).default('/run/pagewake'),
    'folder of the Unix sockets on which VMMs hand over their memory, one VM each; made if it is missing in a folder that is there',
    'dir',
  ),
  stateDir: option(
    z.string().min(1).optional(),
    'folder of what a restarted agent needs to go on with its migrations; best on a tmpfs; default: .state in the folder of the sockets',
    'dir',
  ),
  ...serverFields,
  sourceTlsCa: option(
    z.string().min(1).optional(),
    'authorities that the source agent’s certificate must come from',
    'file',
  ),
  sourceTlsCert: option(z.string().min(1).optional(), 'our certificate for a source agent that asks for one', 'file'),
  sourceTlsKey: option(z.string().min(1).optional(), 'its private key', 'file'),
  sourceServerName: option(z.string().min(1).optional(), 'name to verify in the source agent’s certificate', 'name'),
  traceFaultRatio: option(
    z.number().min(0).max(1).default(0.01),
    'share of the faults of a sampled migration that get spans, 0 to 1',
    'ratio',
  ),
  faultSpinUs: option(
    z.number().int().min(0).max(100_000).optional(),
    'how long to stay awake after a fault, for the next one: shorter stalls for a core that is busy as long as faults come, and yields to whoever else can run; 0: only among several faults at once; default: 200 where there are four cores or more, else 0',
    'us',
  ),
  faultWindowPages: option(
    z.number().int().min(1).max(256).default(64),
    'most pages that one fault brings along, with its own, where faults are near each other; 1: only its own',
    'pages',
  ),
  ...commonFields,
});

export type DestAgentConfig = z.output<typeof destAgentConfig>;
