/** What has to be ended when a test, or a program like one, is over. A test's context is such a scope. */
export interface Scope {
  after(step: () => unknown): void;
}

/** For programs that are no test: the steps run last first. */
export class Cleanup implements Scope {
  readonly #steps: (() => unknown)[] = [];

  after(step: () => unknown): void {
    this.#steps.push(step);
  }

  async run(): Promise<void> {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) await step();
  }
}
