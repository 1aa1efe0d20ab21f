import { TLSSocket } from 'node:tls';

// Loaded before everything else (`--import`) by a node under test: at one message, seen where it enters or leaves TLS, this process is
// killed or its connection cut. PG_TEST_FAULT is `kill|cut send|recv NAME`: before NAME is sent, or when it has arrived and nobody has read it.
const [how, where, name] = (process.env['PG_TEST_FAULT'] ?? '').split(' ');

if (name !== undefined) {
  // The name as the envelope has it: a CBOR text of less than 24 bytes, in a frame whose envelope begins with the grid tag.
  const tag = Buffer.from('da67726964', 'hex');
  const text = Buffer.concat([Buffer.from([0x60 + name.length]), Buffer.from(name)]);
  let done = false;

  const strikes = (bytes: unknown): boolean => {
    if (done || !Buffer.isBuffer(bytes) || !bytes.includes(tag) || !bytes.includes(text)) return false;
    done = true;
    if (how === 'kill') process.kill(process.pid, 'SIGKILL');
    return true;
  };

  const { write, emit } = TLSSocket.prototype;
  if (where === 'send') {
    TLSSocket.prototype.write = function (this: TLSSocket, ...args: unknown[]): boolean {
      if (!strikes(args[0])) return Reflect.apply(write, this, args) as boolean;
      this.destroy();
      return false;
    };
  } else {
    TLSSocket.prototype.emit = function (this: TLSSocket, ...args: unknown[]): boolean {
      if (args[0] !== 'data' || !strikes(args[1])) return Reflect.apply(emit, this, args) as boolean;
      this.destroy();
      return true;
    };
  }
}
