/** Where bare connections of the demand lane are taken: TCP, or TLS by the files that the gRPC port has. */
import { startBareServer, UserError, type BareServer, type TlsFiles } from '@pagewake/agent-kit';
import { sendNow } from '@pagewake/native';
import { FaultConnection, type FaultConnectionContext } from './connection.ts';

export interface FaultPortOptions extends TlsFiles {
  readonly host: string;
  /** 0: the kernel chooses. */
  readonly port: number;
}

/** A message of faults has some 60 bytes a fault, and a VM as many at once as it has threads. */
const MAX_REQUEST_BYTES = 1024 * 1024;

/** @throws UserError where the port cannot be had */
export async function openFaultPort(options: FaultPortOptions, context: FaultConnectionContext): Promise<BareServer> {
  const { host, port, ...tls } = options;
  try {
    return await startBareServer(
      { ...tls, at: { host, port }, maxMessageBytes: MAX_REQUEST_BYTES, sendNow },
      (connection) => new FaultConnection(connection, context),
    );
  } catch (error) {
    if (error instanceof UserError) throw error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(`cannot listen on ${host}:${port} for faults: ${code}; give another --fault-port`);
  }
}
