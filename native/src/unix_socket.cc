#include "unix_socket.h"

#include <sys/socket.h>

#include <cerrno>

#include "addon.h"
#include "args.h"
#include "handed_over.h"
#include "socket_calls.h"

namespace pagewake {

Napi::Function UnixSocket::define(Napi::Env env) {
  using S = UnixSocket;
  return DefineClass(env, "UnixSocket",
                     {StaticMethod("listen", &S::listen), StaticMethod("connect", &S::connect), InstanceMethod("fd", &S::fd),
                      InstanceMethod("accept", &S::accept), InstanceMethod("receive", &S::receive), InstanceMethod("send", &S::send),
                      InstanceMethod("watch", &S::watch), InstanceMethod("unwatch", &S::unwatch), InstanceMethod("peer", &S::peer),
                      InstanceMethod("close", &S::close)});
}

// (descriptor): takes ownership.
UnixSocket::UnixSocket(const Napi::CallbackInfo& info) : Napi::ObjectWrap<UnixSocket>(info) {
  Args args(info);
  const GivenFd given = args.given_fd(0, "fd");
  if (args && kept_by_javascript(*this)) fd_ = given.take();
}

// (path) -> External
Napi::Value UnixSocket::listen(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::string path = args.text(0, "path");
  if (!args) return info.Env().Undefined();
  UniqueFd fd = net::listen_at(path);
  if (!fd.open()) {
    throw_native(info.Env(), errno, "listen", path);
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(fd));
}

// (path) -> External
Napi::Value UnixSocket::connect(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::string path = args.text(0, "path");
  if (!args) return info.Env().Undefined();
  UniqueFd fd = net::connect_to(path);
  if (!fd.open()) {
    throw_native(info.Env(), errno, "connect", path);
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(fd));
}

bool UnixSocket::require_open(const Napi::CallbackInfo& info, const char* call) {
  if (fd_.open()) return true;
  throw_native(info.Env(), EBADF, call, "this socket is closed");
  return false;
}

Napi::Value UnixSocket::fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd_.get()); }

// () -> External, or null where nobody waits
Napi::Value UnixSocket::accept(const Napi::CallbackInfo& info) {
  if (!require_open(info, "accept")) return info.Env().Undefined();
  for (;;) {
    UniqueFd peer(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (peer.open()) return handed_over(info.Env(), std::move(peer));
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN) return info.Env().Null();
    throw_native(info.Env(), errno, "accept", "");
    return info.Env().Undefined();
  }
}

// (into: Uint8Array, fds: Int32Array of 17) -> bytes; 0 at the end; -1 where there is nothing
Napi::Value UnixSocket::receive(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> into = args.bytes(0, "into");
  const std::span<int32_t> fds = args.integers(1, "fds");
  args.require(!into.empty(), "into must have room for a byte");
  args.require(fds.size() > net::kMaxFds, "fds must have room for 17 numbers");
  if (!args || !require_open(info, "recvmsg")) return info.Env().Undefined();
  size_t count = 0;
  const ssize_t got = net::receive(fd_.get(), into, fds.subspan(1).first<net::kMaxFds>(), count);
  fds[0] = static_cast<int32_t>(count);
  if (got == -EAGAIN) return Napi::Number::New(info.Env(), -1);
  if (got < 0) {
    throw_native(info.Env(), static_cast<int>(-got), "recvmsg",
                 got == -EMSGSIZE ? "more than 16 descriptors in a message, or none left in this process" : "");
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), static_cast<double>(got));
}

// (data, offset, length, fds: Int32Array) -> bytes, or -1 where the peer is behind
Napi::Value UnixSocket::send(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> data = args.slice(0, "data");
  const std::span<int32_t> fds = args.integers(3, "fds");
  args.require(!data.empty(), "data must have a byte");
  args.require(fds.size() <= net::kMaxFds, "at most 16 descriptors go with a message");
  if (!args || !require_open(info, "sendmsg")) return info.Env().Undefined();
  const ssize_t sent = net::send(fd_.get(), data, fds);
  if (sent == -EAGAIN) return Napi::Number::New(info.Env(), -1);
  if (sent < 0) {
    throw_native(info.Env(), static_cast<int>(-sent), "sendmsg", "");
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), static_cast<double>(sent));
}

// () -> [pid, uid, gid] of who connected or listened
Napi::Value UnixSocket::peer(const Napi::CallbackInfo& info) {
  if (!require_open(info, "getsockopt")) return info.Env().Undefined();
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    throw_native(info.Env(), errno, "getsockopt", "SO_PEERCRED");
    return info.Env().Undefined();
  }
  Napi::Array result = Napi::Array::New(info.Env(), 3);
  result.Set(0u, static_cast<double>(credentials.pid));
  result.Set(1u, static_cast<double>(credentials.uid));
  result.Set(2u, static_cast<double>(credentials.gid));
  return result;
}

// (readable, writable, onReady(status, readable, writable)); again to change what is watched
void UnixSocket::watch(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Args args(info);
  const int events = (args.flag(0, "readable") ? UV_READABLE : 0) | (args.flag(1, "writable") ? UV_WRITABLE : 0);
  const Napi::Function onReady = args.function(2, "onReady");
  if (!args || !require_open(info, "uv_poll_start")) return;
  if (poll_ == nullptr) {
    poll_ = LoopPoll::create(env, fd_.get(), [this](int status, int events) { on_ready(status, events); });
    if (poll_ == nullptr) return;
    context_ = std::make_unique<Napi::AsyncContext>(env, "pagewake.UnixSocket");
    Ref();  // the loop calls this object
  }
  onReady_ = Napi::Persistent(onReady);
  const int status = poll_->watch(events);
  if (status != 0) throw_native(env, -status, "uv_poll_start", "");
}

void UnixSocket::on_ready(int status, int events) {
  const Napi::Env env = Env();
  const Napi::HandleScope scope(env);
  call_from_loop(env, onReady_, *context_,
                 {Napi::Number::New(env, status), Napi::Boolean::New(env, (events & UV_READABLE) != 0),
                  Napi::Boolean::New(env, (events & UV_WRITABLE) != 0)});
}

void UnixSocket::unwatch(const Napi::CallbackInfo&) { end_watch(); }

void UnixSocket::end_watch() {
  if (poll_ == nullptr) return;
  poll_->close();
  poll_.reset();
  Unref();
}

void UnixSocket::close(const Napi::CallbackInfo&) {
  end_watch();
  shut();
}

void UnixSocket::shut() {
  if (poll_ != nullptr) poll_->close();
  poll_.reset();
  fd_.reset();
}

void init_unix_socket(Napi::Env env, Napi::Object exports) { exports.Set("UnixSocket", UnixSocket::define(env)); }

}  // namespace pagewake
