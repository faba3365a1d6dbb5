// Preloaded with `--require` into servers nobody here wrote: they listen on a free loopback port, whatever they meant
// to listen on, and say which in the file named by COUNTERPART_PORT_FILE. Several listen on all interfaces otherwise,
// or on a fixed port. With COUNTERPART_KEEP_PORTS they keep the ports they were told, since they put them into their
// addresses. With COUNTERPART_HEARD every request is said as `HEARD {"what":"POST /token"}`.
const { writeFileSync, renameSync } = require("node:fs");
const http = require("node:http");
const net = require("node:net");

const listen = net.Server.prototype.listen;
let announced = false;
net.Server.prototype.listen = function (...args) {
  const ready = args.find((argument) => typeof argument === "function");
  this.once("listening", () => {
    const file = process.env.COUNTERPART_PORT_FILE;
    if (announced || !file) return;
    announced = true;
    writeFileSync(`${file}.part`, String(this.address().port));
    renameSync(`${file}.part`, file);
  });
  // With a host name, even a number, Node would listen later; some ask for the port at once.
  const port = process.env.COUNTERPART_KEEP_PORTS ? Number(args[0]) : 0;
  const handle = net._createServerHandle("127.0.0.1", port, 4);
  if (typeof handle === "number") throw new Error(`port ${port} is taken`);
  return listen.call(this, handle, ready);
};

if (process.env.COUNTERPART_HEARD) {
  const emit = http.Server.prototype.emit;
  http.Server.prototype.emit = function (event, request, ...rest) {
    if (event === "request") console.log(`HEARD ${JSON.stringify({ what: `${request.method} ${request.url.split("?")[0]}` })}`);
    return emit.call(this, event, request, ...rest);
  };
}

// To Node a connection on which nothing was sent yet is busy, and a closing server waits a minute for it. Clients that
// keep a pool have such connections.
const close = http.Server.prototype.close;
http.Server.prototype.close = function (...args) {
  const closing = close.apply(this, args);
  this.closeAllConnections();
  return closing;
};
