// Connects to HOST:PORT so often, with at most so many under way, and says what came of each.
const net = require("net");
const [host, port, count, most] = process.argv.slice(2);
let begun = 0;
function next() {
  if (begun === Number(count)) return;
  begun++;
  const socket = net.connect({ host, port: Number(port) });
  socket.on("connect", () => {
    console.log("ok");
    socket.destroy();
  });
  socket.on("error", (error) => console.log(error.code));
  socket.on("close", next);
}
for (let i = 0; i < Number(most); i++) next();
