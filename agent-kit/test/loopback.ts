const SLICE = 0x40;

/**
 * An address of this machine that no other test process has: a port of 127.0.0.1 that was let go for a moment may be anybody's by then, as a
 * listener's or at the near end of a connection. All of 127.0.0.0/8 is the loopback (RFC 1122, 3.2.1.3).
 */
export const OWN_LOOPBACK = `127.${SLICE | ((process.pid >> 16) & 0x3f)}.${(process.pid >> 8) & 0xff}.${process.pid & 0xff}`;
