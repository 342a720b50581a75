import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { ErrorReason, isUnreachable, PagewakeError } from './errors.ts';

const CODES: readonly [reason: ErrorReason, code: status][] = [
  [ErrorReason.UNSPECIFIED, status.UNKNOWN],
  [ErrorReason.UNKNOWN_VM, status.NOT_FOUND],
  [ErrorReason.VM_NOT_PAUSED, status.FAILED_PRECONDITION],
  [ErrorReason.BAD_TOKEN, status.UNAUTHENTICATED],
  [ErrorReason.OUT_OF_RANGE, status.OUT_OF_RANGE],
  [ErrorReason.CHECKSUM_MISMATCH, status.DATA_LOSS],
  [ErrorReason.MIGRATION_EXISTS, status.ALREADY_EXISTS],
  [ErrorReason.SOURCE_LOST, status.UNAVAILABLE],
  [ErrorReason.VMM_EXITED, status.ABORTED],
  [ErrorReason.CANCELLED, status.CANCELLED],
  [ErrorReason.INVALID_ARGUMENT, status.INVALID_ARGUMENT],
  [ErrorReason.INTERNAL, status.INTERNAL],
];

test('a reason travels under a code that gRPC has by that name', () => {
  for (const [reason, code] of CODES)
    assert.equal(new PagewakeError(reason, '').code, code, `${ErrorReason[reason]}, ${status[code]}`);
});

test('every reason has a code', () => {
  for (const reason of Object.values(ErrorReason))
    if (typeof reason === 'number') assert.ok(new PagewakeError(reason, '').code > status.OK, ErrorReason[reason]);
});

test('a peer that is not there, and one that does not answer in time, may be tried again', () => {
  for (const code of [status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.ABORTED])
    assert.equal(
      isUnreachable(new PagewakeError(ErrorReason.UNSPECIFIED, '', {}, { code })),
      code !== status.ABORTED,
      status[code],
    );
});
