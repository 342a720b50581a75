/**
 * A call of set-up that the system refused: open, register, listen. Calls on memory do not throw it; they return an `Outcome`.
 * The native side names `code` and `syscall`; only the class is made here.
 */
export class NativeError extends Error {
  override readonly name = 'NativeError';
  /** The symbol of the errno, e.g. "ENOENT". */
  readonly code: string;
  /** What was called, e.g. "UFFDIO_REGISTER". */
  readonly syscall: string;

  constructor(code: string, syscall: string, message: string) {
    super(message);
    this.code = code;
    this.syscall = syscall;
  }
}
