/** What the main thread and the bulk lane's worker say to each other. */
import type { ErrorReason, TlsFiles } from '@pagewake/agent-kit';
import type { Compression } from '../grpc/bulk-lane.ts';
import type { ImageShare } from '../../domain/guest-image.ts';

/** Given to the worker at its start. */
export interface BulkStart extends TlsFiles {
  readonly host: string;
  /** 0: the kernel chooses. */
  readonly port: number;
  readonly compression: Compression;
}

export interface BulkError {
  readonly reason: ErrorReason;
  readonly message: string;
  readonly metadata: Readonly<Record<string, string>>;
}

export type ToBulk =
  /** The agent ends. */
  | { readonly type: 'stop' }
  /** The session is good. The descriptors in `image` are the worker's from here on. */
  | {
      readonly type: 'attached';
      readonly stream: number;
      readonly image: ImageShare;
      readonly served: SharedArrayBuffer;
    }
  /** The gate was shut for a moment only: go on. */
  | { readonly type: 'go'; readonly stream: number }
  /** Nothing more may be served, and this is what its peer is to be told. */
  | { readonly type: 'end'; readonly stream: number; readonly error: BulkError };

export type FromBulk =
  | { readonly type: 'listening'; readonly port: number }
  | { readonly type: 'not-listening'; readonly code: string }
  /** A peer names its session: is it good? */
  | { readonly type: 'attach'; readonly stream: number; readonly session: Uint8Array }
  /** The gate is shut: why? */
  | { readonly type: 'check'; readonly stream: number }
  | { readonly type: 'gone'; readonly stream: number }
  | { readonly type: 'bug'; readonly message: string };
