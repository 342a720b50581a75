/** What a message of the VMM asks of the fault lane. */
import type { GuestLayout, PagePlace, VmmMessage } from '@pagewake/core';
import type { ToLane } from '../lanes/messages.ts';
import { parseTraceparent } from './traceparent.ts';

/** Undefined where the message names memory that is in no region, or removes what are no whole pages. */
export function laneOrderOf(message: VmmMessage, layout: GuestLayout): ToLane | undefined {
  const place = layout.atOffset(message.offset);
  if (!place) return undefined;
  const first = place.region.firstLedgerPage + place.page;
  if (message.type === 'stage2_fault') {
    const parent = message.traceparent === undefined ? undefined : parseTraceparent(message.traceparent);
    return { type: 'stage2', id: message.id, ledgerPage: first, parent };
  }
  const end = message.offset + message.len;
  const last = layout.atOffset(end - 1);
  // Half a page given back would be a whole page of zeros to the guest.
  if (!last || !isPageBorder(place, message.offset) || !isPageBorder(last, end)) return undefined;
  const count = last.region.firstLedgerPage + last.page - first + 1;
  return { type: 'removed', first, count, offset: message.offset, len: message.len };
}

const isPageBorder = ({ region }: PagePlace, offset: number): boolean =>
  (offset - region.offset) % region.pageSizeBytes === 0;
