/** What can go wrong with a QMP connection, as classes. */
import { UserError } from '@pagewake/agent-kit';

/** QEMU answered, and said no. */
export class QmpRefused extends UserError {
  override readonly name = 'QmpRefused';
  /** "GenericError", "CommandNotFound", … */
  readonly errorClass: string;
  /** QEMU's own words. */
  readonly text: string;

  constructor(message: string, errorClass: string, text: string) {
    super(message);
    this.errorClass = errorClass;
    this.text = text;
  }
}

/** Nobody is there, or nobody who speaks QMP. */
export class QmpUnreachable extends UserError {
  override readonly name = 'QmpUnreachable';
}

/** The connection ended: QEMU is gone, or closed it. */
export class QmpClosed extends UserError {
  override readonly name = 'QmpClosed';
}

/** QEMU has the command and says nothing. */
export class QmpSilent extends UserError {
  override readonly name = 'QmpSilent';
}
