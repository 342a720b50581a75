/** A destination agent that is killed without warning and started again on the same port, sockets and state. */
import { startDestAgent, type Agent, type AgentOptions } from './agents.ts';
import type { Host } from './hosts.ts';
import type { JsonLine } from './processes.ts';

export class MortalDest {
  readonly #host: Host;
  readonly #socketDir: string;
  readonly #options: AgentOptions;
  /** What every one of them has logged. */
  readonly lines: JsonLine[] = [];
  #agent: Agent;
  deaths = 0;

  private constructor(host: Host, socketDir: string, options: AgentOptions, agent: Agent) {
    this.#host = host;
    this.#socketDir = socketDir;
    this.#options = { ...options, port: Number(agent.address.split(':').at(-1)) };
    this.#agent = agent;
  }

  static async start(host: Host, socketDir: string, options: AgentOptions = {}): Promise<MortalDest> {
    return new MortalDest(host, socketDir, options, await startDestAgent(host, socketDir, options));
  }

  /** Of the one that lives. */
  get agent(): Agent {
    return this.#agent;
  }

  get address(): string {
    return this.#agent.address;
  }

  async kill(): Promise<void> {
    this.deaths++;
    this.#agent.program.signal('SIGKILL');
    await this.#agent.program.exited;
    this.lines.push(...this.#agent.program.lines);
  }

  async startAgain(): Promise<void> {
    this.#agent = await startDestAgent(this.#host, this.#socketDir, this.#options);
  }

  async stop(): Promise<number> {
    const code = await this.#agent.program.stop();
    this.lines.push(...this.#agent.program.lines);
    return code;
  }
}
