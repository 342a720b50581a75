// The control socket: newline-terminated commands in, one JSON line each out, a thread per connection.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fd.h"

namespace testvmm {

struct Reply {
  std::string json;
  /** The program ends with this code once the reply is written. */
  std::optional<int> exitCode = std::nullopt;
};

using CommandHandler = std::function<Reply(const std::vector<std::string> &words)>;

/** Binds; throws Failure if the path cannot be used. A stale socket of a dead program is replaced, a live one is not.
 */
Fd listenControl(const std::string &path);
/** Accepts on a thread of its own for the life of the program. The handler is called by several threads. */
void serveControl(Fd listener, CommandHandler handler);

/** A connected stream socket; throws Failure naming the path. Also used towards the agent. */
Fd connectUnix(const std::string &path, const char *whose);
/** The same, connected by a child without any of our descriptors, so SO_PEERCRED names that one. It lives as long as we do.
 */
Fd connectUnixByAnother(const std::string &path, const char *whose);

} // namespace testvmm
