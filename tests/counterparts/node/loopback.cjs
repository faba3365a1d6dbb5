// Preloaded with `--require` into servers nobody here wrote: they listen on a free loopback port, whatever they meant
// to listen on, and say which in the file named by COUNTERPART_PORT_FILE. Several listen on all interfaces otherwise,
// or on a fixed port.
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
  return listen.call(this, net._createServerHandle("127.0.0.1", 0, 4), ready);
};

// To Node a connection on which nothing was sent yet is busy, and a closing server waits a minute for it. Clients that
// keep a pool have such connections.
const close = http.Server.prototype.close;
http.Server.prototype.close = function (...args) {
  const closing = close.apply(this, args);
  this.closeAllConnections();
  return closing;
};
