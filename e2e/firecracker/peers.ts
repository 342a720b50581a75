/** Peers on a VMM's socket that are no VMM: what they say, and what they are told before they are sent away. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

async function connected(path: string): Promise<Socket> {
  const socket = connect(path);
  await once(socket, 'connect');
  return socket;
}

/** A reset is an end like any other. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    socket.on('error', () => undefined).on('close', () => resolve());
  });
}

/** Says `text`, and waits to be sent away. @returns what it was told */
export async function refusalOf(path: string, text: string): Promise<string> {
  const socket = await connected(path);
  let told = '';
  socket.setEncoding('utf8').on('data', (piece: string) => (told += piece));
  if (text !== '') socket.write(text);
  await closed(socket);
  return told;
}

/** Says `text` and goes. */
export async function leave(path: string, text: string): Promise<void> {
  const socket = await connected(path);
  if (text === '') socket.destroy();
  else socket.end(text);
  socket.resume();
  await closed(socket);
}
