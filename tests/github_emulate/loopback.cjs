// emulate 0.11.2 listens on all interfaces and has no option against it. Loaded with `node --require`,
// this gives every server that names no host the loopback address instead.
const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, host, ...rest) {
  return listen.call(this, port, host ?? "127.0.0.1", ...rest);
};
