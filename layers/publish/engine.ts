/** `docker-daemon:NAME` and `podman-daemon:NAME`: into a running engine, by `POST /images/load`, the API of `docker load`. */
import { Readable } from 'node:stream';
import type { Store } from '../../store/store.ts';
import { PgError } from '../../mdm/error.ts';
import type { ImageRecord } from '../images.ts';
import { type EngineKind, findEngine, inspectImage, noEngine } from '../transport/docker-daemon.ts';
import { tarPieces } from './files.ts';
import { type LayerProgress, savedFiles } from './saved.ts';

type Env = Readonly<Record<string, string | undefined>>;
const ANSWER_BYTES_MAX = 1024 * 1024;

/**
 * Gives the image to the engine under `tags`, and makes sure that it has it then. PgError `ENGINE_UNREACHABLE`, `ENGINE_REFUSED`,
 * `LAYER_DAMAGED`. Returns which engine it was, in words.
 */
export async function loadIntoEngine(
  store: Store,
  image: ImageRecord,
  kind: EngineKind,
  tags: readonly string[],
  env: Env,
  progress: LayerProgress | undefined,
  signal: AbortSignal | undefined,
): Promise<string> {
  const engine = await findEngine(kind, env);
  if (engine === null) throw noEngine(kind);
  const where = `the local ${kind === 'docker' ? 'Docker' : 'podman'} engine (${engine.host})`;
  let failure: { error: unknown } | undefined;
  async function* pieces(): AsyncGenerator<Buffer> {
    try {
      for await (const piece of tarPieces(savedFiles(store, image, tags, progress))) {
        signal?.throwIfAborted();
        // A copy: the socket may not have sent it yet when the next piece is made.
        yield Buffer.from(piece);
      }
    } catch (error) {
      failure = { error };
      throw error;
    }
  }
  const refused = (why: string, cause?: unknown): PgError =>
    new PgError('ENGINE_REFUSED', `${where} does not take the image: ${why}`, {
      hint: 'its log says more',
      ...(cause === undefined ? {} : { cause }),
    });
  try {
    const answer = await engine.client.loadImage(Readable.from(pieces(), { objectMode: false }), { quiet: true });
    const said = await errorIn(answer);
    if (said !== undefined) throw refused(said);
  } catch (error) {
    signal?.throwIfAborted();
    if (failure !== undefined) throw failure.error;
    if (error instanceof PgError) throw error;
    const { json, reason, message } = error as { json?: { message?: string }; reason?: string; message?: string };
    throw refused(json?.message ?? reason ?? message ?? String(error), error);
  }
  if ((await inspectImage(engine, image.id)) === null) throw refused('it does not have it after taking it in');
  return where;
}

/** The error in the stream of JSON objects that the engine answers with, if there is one. */
async function errorIn(answer: NodeJS.ReadableStream): Promise<string | undefined> {
  let text = '';
  for await (const chunk of answer) if (text.length < ANSWER_BYTES_MAX) text += String(chunk);
  for (const line of text.split('\n')) {
    try {
      const { error } = JSON.parse(line) as { error?: unknown };
      // It goes to a terminal.
      if (typeof error === 'string') return error.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 300);
    } catch {
      // podman's last line is no JSON
    }
  }
  return undefined;
}
