/** The page ledger, the clock and the loop of the native core, under the names that the lanes use. */
export {
  LoopSpin,
  MAX_CLAIM_PAGES,
  monotonicMs,
  PAGE,
  PageLedger,
  setThreadNice,
  UFFD_EVENT,
  UFFD_EVENT_BATCH,
  UFFD_EVENT_FIELDS,
  UFFD_FAULT_FLAG,
} from '@pagewake/native';
export type { Uffd } from '@pagewake/native';
