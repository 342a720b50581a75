/** Unix sockets that carry descriptors, from the native core. */
import { UnixListener, type UnixConnection } from '@pagewake/native';

export type VmmConnection = UnixConnection;
export type VmmListener = UnixListener;

export function listenForVmm(path: string, onConnection: (connection: VmmConnection) => void): VmmListener {
  return UnixListener.listen(path, onConnection);
}
