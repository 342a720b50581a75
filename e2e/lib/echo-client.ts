/**
 * One TCP connection that says something every 20 ms and requires the same back, for as long as it runs: `node echo-client.ts ADDRESS PORT`. A
 * JSON line five times a second, and one when the connection ends.
 */
import { connect } from 'node:net';
import { hostNowMs } from './serial.ts';

const EVERY_MS = 20;
const REPORT_MS = 200;

const [address = '', port = ''] = process.argv.slice(2);
const socket = connect({ host: address, port: Number(port), noDelay: true });
let sent = 0;
let answered = 0;
let answeredAtMs = hostNowMs();
let longestSilenceMs = 0;
let pending = '';

const say = (event: string, more: object = {}): void =>
  void process.stdout.write(`${JSON.stringify({ event, sent, answered, longestSilenceMs, ...more })}\n`);

function onData(chunk: string): void {
  const now = hostNowMs();
  longestSilenceMs = Math.max(longestSilenceMs, now - answeredAtMs);
  answeredAtMs = now;
  const lines = (pending + chunk).split('\n');
  pending = lines.pop() ?? '';
  for (const line of lines) {
    if (line !== `${answered}`) {
      say('wrong', { expected: answered, got: line });
      process.exit(1);
    }
    answered++;
  }
}

socket.setEncoding('latin1');
socket.on('data', onData);
socket.on('connect', () => {
  answeredAtMs = hostNowMs();
  say('connected');
  setInterval(() => socket.write(`${sent++}\n`), EVERY_MS);
  setInterval(() => say('state'), REPORT_MS);
});
socket.on('error', (error) => {
  say('closed', { error: error.message });
  process.exit(1);
});
socket.on('close', () => {
  say('closed');
  process.exit(1);
});
