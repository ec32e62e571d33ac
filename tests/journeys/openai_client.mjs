// OpenAI's official Node client, driven as openai_client.py is.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const OpenAI = createRequire(process.env.CORRAL_NODE_CLIENTS + "/x.js")("openai");
const told = (fields) => process.stdout.write(JSON.stringify(fields) + "\n");

async function streamed(stream, asked, found) {
  Object.assign(found, { pieces: 0, text: "", usage: null, kinds: [] });
  for await (const piece of stream) {
    found.pieces += 1;
    if (found.pieces === 1) told({ begun: true });
    found.usage = piece.usage ?? piece.response?.usage ?? found.usage;
    found.kinds.push(piece.type ?? null);
    for (const choice of piece.choices ?? []) found.text += choice.text ?? choice.delta?.content ?? "";
    if (typeof piece.delta === "string") found.text += piece.delta;
    if (found.pieces === asked.take) {
      stream.controller.abort();
      return;
    }
  }
}

async function call(asked) {
  const found = { answers: [] };
  const client = new OpenAI({
    baseURL: asked.base, apiKey: asked.key, maxRetries: asked.retries ?? 0, timeout: 60000,
    fetch: async (url, options) => {
      const response = await fetch(url, options);
      found.answers.push([response.status, response.headers.get("retry-after"), performance.now() / 1000]);
      if (response.status === 429) told({ limited: true });
      return response;
    },
  });
  const path = asked.call.replace(/_(.)/g, (_, letter) => letter.toUpperCase()).split(".");
  const last = path.pop();
  const owner = path.reduce((made, name) => made[name], client);
  const given = asked.args && Object.keys(asked.args).length ? [asked.args] : [];
  try {
    const answer = await owner[last](...(asked.of ?? []), ...given);
    if (asked.args?.stream) await streamed(answer, asked, found);
    else {
      found.id = answer._request_id ?? null;
      found.answer = answer.data && answer.getNextPage ? { object: answer.object, data: answer.data } : answer;
    }
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    Object.assign(found, {
      error: error.constructor.name, message: error.message, code: error.code ?? null, kind: error.type ?? null,
      status: error.status ?? null, id: error.requestID ?? null,
    });
  }
  return found;
}

for await (const line of createInterface({ input: process.stdin })) told(await call(JSON.parse(line)));
