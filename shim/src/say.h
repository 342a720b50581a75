// Words on QEMU's standard error. One line each, in one write, so that lines of several threads do not mix.
#pragma once

#define PRINTF_LIKE __attribute__((format(printf, 1, 2)))

/** One line, `pagewake-shim: …`; the same words twice in a row are said once. */
void say(const char *format, ...) PRINTF_LIKE;

/**
 * The line, then the end of the process: no handler of QEMU's runs, as one might touch memory that nobody serves. Only for as long as no guest
 * has run here.
 */
_Noreturn void refuse(const char *format, ...) PRINTF_LIKE;
