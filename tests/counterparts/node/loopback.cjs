// Preloaded with `--require` into servers nobody here wrote: they listen on a free loopback port, whatever they meant
// to listen on, and say which in the file named by COUNTERPART_PORT_FILE. Several listen on all interfaces otherwise,
// or on a fixed port.
const { writeFileSync, renameSync } = require("node:fs");
const { Server } = require("node:net");

const listen = Server.prototype.listen;
let announced = false;
Server.prototype.listen = function (...args) {
  const ready = args.find((argument) => typeof argument === "function");
  this.once("listening", () => {
    const file = process.env.COUNTERPART_PORT_FILE;
    if (announced || !file) return;
    announced = true;
    writeFileSync(`${file}.part`, String(this.address().port));
    renameSync(`${file}.part`, file);
  });
  return listen.call(this, { port: 0, host: "127.0.0.1" }, ready);
};
