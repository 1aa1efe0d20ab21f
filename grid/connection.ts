import type { TLSSocket } from 'node:tls';
import { fromErrorData, isPgError, PgError, toErrorData, type PgErrorData } from '../mdm/error.ts';
import { badMessage, textOf, type Body, type Envelope } from './envelope.ts';
import type { Peer } from './peers.ts';
import type { ProtocolName } from './protocol.ts';
import { FrameReader, NO_BYTES, writeFrame, type Frame } from './wire.ts';

/** What came with a request or a reply. */
export interface Message {
  body: Body;
  bulk: Buffer;
}

/** What a service answers. */
export interface Answer {
  body?: Body;
  bulk?: Uint8Array;
}

/** Answers one kind of request. What it throws goes to the requester as an error (a PgError whole, anything else as INTERNAL). */
export type Service = (message: Message) => Promise<Answer>;
/** The requests that a connection answers, by protocol and name. */
export type Services = Partial<Record<ProtocolName, Record<string, Service>>>;

/** How long silence lasts before it counts: a ping goes out in every silent tick, and after `silentTicks` of them the peer is gone. */
export interface Patience {
  tickMs: number;
  silentTicks: number;
}
export const PATIENCE: Patience = { tickMs: 5000, silentTicks: 4 };

/** Bytes of requests that may have arrived without being answered yet; beyond them the socket is not read. */
const MAX_UNANSWERED_BYTES = 8 << 22;
/** What one of them takes of memory at least. */
const LEAST_HELD_BYTES = 1 << 10;
/** No request is begun while those under way, whose answers the peer has not taken yet, come to more. */
const MAX_UNDER_WAY_BYTES = 8 << 22;
/** What one of them counts for at least: its answer may be a sector, however short the question was. */
const LEAST_UNDER_WAY_BYTES = 1 << 20;
const REFUSAL_LINGER_MS = 2000;

interface Pending {
  name: string;
  resolve: (message: Message) => void;
  reject: (error: Error) => void;
}

/**
 * A conversation with one peer over an authenticated socket. Either side may ask; many requests may be under way at once and are
 * answered in any order. Whatever ends the connection fails every request that has no answer yet with PEER_GONE (or the peer's refusal).
 */
export class Connection {
  readonly peer: Peer;
  /** Resolves when the connection has ended: with the error that ended it, or undefined after an orderly close. */
  readonly closed: Promise<PgError | undefined>;
  readonly #socket: TLSSocket;
  readonly #services: Services;
  readonly #pending = new Map<number, Pending>();
  readonly #timer: NodeJS.Timeout;
  #nextId = 1;
  #silent = 0;
  #unansweredBytes = 0;
  #underWayBytes = 0;
  /** Requests that are not begun yet, because enough are under way. */
  readonly #waiting: Frame[] = [];
  #sentBytes = 0;
  #receivedBytes = 0;
  #ended = false;
  #end!: (reason: PgError | undefined) => void;

  constructor(socket: TLSSocket, peer: Peer, services: Services, patience: Patience = PATIENCE) {
    this.peer = peer;
    this.#socket = socket;
    this.#services = services;
    this.closed = new Promise((resolve) => {
      this.#end = resolve;
    });
    const reader = new FrameReader((frame) => this.#take(frame));
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 15_000);
    socket.on('data', (chunk: Buffer) => {
      this.#silent = 0;
      this.#receivedBytes += chunk.length;
      try {
        reader.push(chunk);
      } catch (error) {
        this.#refuse(isPgError(error) ? error : badMessage(String(error), error));
      }
    });
    socket.on('error', (error) => this.#finish(this.#gone(error.message)));
    socket.on('end', () => this.#finish(reader.partial ? this.#gone('in the middle of a message') : undefined));
    socket.on('close', () => this.#finish(undefined));
    this.#timer = setInterval(() => this.#tick(patience), patience.tickMs);
  }

  /** Bytes of frames sent and received so far (before TLS adds its 22 bytes per 16 KiB). */
  get traffic(): { sentBytes: number; receivedBytes: number } {
    return { sentBytes: this.#sentBytes, receivedBytes: this.#receivedBytes };
  }

  /**
   * Asks, and waits for the answer as long as the peer is there.
   * Errors: what the peer answered, or PEER_GONE when the connection ends first: then it is unknown whether the request was carried out.
   */
  async request(protocol: ProtocolName, name: string, body: Body = {}, bulk?: Uint8Array): Promise<Message> {
    if (this.#ended) throw this.#gone('before it was asked', name);
    const id = this.#nextId++;
    const answer = new Promise<Message>((resolve, reject) => this.#pending.set(id, { name, resolve, reject }));
    this.#send({ protocol, type: 'request', id, name, body }, bulk);
    return answer;
  }

  /** Ends the connection in good order; requests without an answer fail. */
  close(): void {
    this.#finish(undefined);
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), REFUSAL_LINGER_MS).unref();
  }

  #send(envelope: Envelope, bulk?: Uint8Array): void {
    if (!this.#socket.writable) return;
    this.#sentBytes += writeFrame(this.#socket, envelope, bulk);
  }

  #take(frame: Frame): void {
    if (this.#ended) return;
    const { envelope, bulk } = frame;
    if (envelope.type === 'request') {
      this.#unansweredBytes += Math.max(frame.bytes, LEAST_HELD_BYTES);
      if (this.#unansweredBytes > MAX_UNANSWERED_BYTES) this.#socket.pause();
      this.#waiting.push(frame);
      this.#serveWaiting();
      return;
    }
    if (envelope.type === 'error' && envelope.id === 0) {
      const { code, message, hint } = errorOf(envelope.body);
      this.#finish(
        fromErrorData({ code, message: `peer ${this.peer.name}: ${message}`, ...(hint === undefined ? {} : { hint }) }),
      );
      this.#socket.destroy();
      return;
    }
    const pending = this.#pending.get(envelope.id);
    if (pending === undefined) throw badMessage(`an answer to nothing that was asked (${envelope.name})`);
    this.#pending.delete(envelope.id);
    if (envelope.type === 'reply') pending.resolve({ body: envelope.body, bulk });
    else pending.reject(fromErrorData(errorOf(envelope.body)));
  }

  #serveWaiting(): void {
    while (this.#waiting.length > 0 && this.#underWayBytes < MAX_UNDER_WAY_BYTES && !this.#ended)
      void this.#serve(this.#waiting.shift()!);
  }

  async #serve({ envelope, bulk, bytes }: Frame): Promise<void> {
    const { protocol, id, name, body } = envelope;
    const service: Service | undefined =
      protocol === 'node' && name === 'ping' ? async () => ({}) : ownValue(this.#services[protocol], name);
    const cost = Math.max(bytes, LEAST_UNDER_WAY_BYTES);
    this.#underWayBytes += cost;
    try {
      if (service === undefined)
        throw new PgError('UNKNOWN_REQUEST', `this node does not answer '${name.slice(0, 80)}'`);
      const answer = await service({ body, bulk });
      await this.#sendTaken({ protocol, type: 'reply', id, name, body: answer.body ?? {} }, answer.bulk);
    } catch (error) {
      await this.#sendTaken({ protocol, type: 'error', id, name, body: { ...toErrorData(error) } });
    } finally {
      this.#underWayBytes -= cost;
      this.#unansweredBytes -= Math.max(bytes, LEAST_HELD_BYTES);
      if (this.#unansweredBytes <= MAX_UNANSWERED_BYTES) this.#socket.resume();
      this.#serveWaiting();
    }
  }

  /** Sends; resolves when the peer has taken it, or is gone. */
  #sendTaken(envelope: Envelope, bulk?: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#socket.writable) return resolve();
      this.#sentBytes += writeFrame(this.#socket, envelope, bulk, () => resolve());
    });
  }

  #tick({ silentTicks }: Patience): void {
    // Silence is counted in ticks and not in time, so that a stall of this process is not taken for a stall of the peer.
    if (this.#silent++ >= silentTicks) {
      this.#finish(this.#gone('nothing was heard from it any more'));
      this.#socket.destroy();
    } else if (this.#silent > 1) {
      this.request('node', 'ping').catch(() => undefined);
    }
  }

  #refuse(error: PgError): void {
    this.#finish(error);
    refuseSocket(this.#socket, error);
  }

  #gone(how: string, during?: string): PgError {
    const asked = during ?? this.#pending.values().next().value?.name;
    const doing = asked === undefined ? '' : ` (during '${asked}')`;
    return new PgError('PEER_GONE', `the connection to peer ${this.peer.name} was cut: ${how}${doing}`, {
      hint: 'check the network and that the other node runs: pg node status',
    });
  }

  #finish(reason: PgError | undefined): void {
    if (this.#ended) return;
    const cut = reason ?? this.#gone('it was closed');
    this.#ended = true;
    clearInterval(this.#timer);
    for (const { reject } of this.#pending.values()) reject(cut);
    this.#pending.clear();
    this.#end(reason);
    if (reason === undefined) this.#socket.end();
  }
}

/** Says why to the other side and hangs up; it is given a moment to read it (closing with unread bytes would reset the connection). */
export function refuseSocket(socket: TLSSocket, error: PgError): void {
  if (socket.writable) {
    writeFrame(
      socket,
      { protocol: 'node', type: 'error', id: 0, name: 'refuse', body: { ...toErrorData(error) } },
      NO_BYTES,
    );
    socket.end();
  }
  socket.removeAllListeners('data');
  socket.on('error', () => undefined);
  socket.resume();
  setTimeout(() => socket.destroy(), REFUSAL_LINGER_MS).unref();
}

/** The error in a body; texts are cut, as they come from outside and go to a terminal. */
function errorOf(body: Body): PgErrorData {
  const code = textOf(body, 'code');
  if (!/^[A-Z][A-Z0-9_]{0,63}$/.test(code)) throw badMessage('an error without a code');
  const hint = body['hint'] === undefined ? {} : { hint: clean(textOf(body, 'hint')) };
  return { code, message: clean(textOf(body, 'message')), ...hint };
}

/** A text from outside that goes to a terminal: without control characters, and not endless. */
const clean = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, ' ').slice(0, 2000);

function ownValue<T>(map: Record<string, T> | undefined, key: string): T | undefined {
  return map !== undefined && Object.hasOwn(map, key) ? map[key] : undefined;
}
