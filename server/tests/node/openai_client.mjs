// Uses a sparkherd endpoint as its users do: through OpenAI's own client, with retries off.
//
//     node openai_client.mjs BASE_URL API_KEY MODEL [grammars]
//
// Asserts what holds for any model, so it runs against a fake engine and a real one alike. Exits 0 if all of it holds.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { VERSION } from "openai/version";
import { z } from "zod";

const [baseURL, apiKey, model, grammars] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const hello = [{ role: "user", content: "Hello" }];
const weather = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};

async function collected(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function chatWhole() {
  const { data: answer, response } = await client.chat.completions
    .create({ model, messages: hello, temperature: 0, max_tokens: 16, user: "someone" })
    .withResponse();
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.model, model);
  assert.equal(answer.choices.length, 1);
  const [{ message, finish_reason: reason }] = answer.choices;
  assert.equal(message.role, "assistant");
  assert.equal(typeof message.content, "string");
  assert.ok(["stop", "length"].includes(reason), reason);
  const { prompt_tokens: prompt, completion_tokens: completion, total_tokens: total } = answer.usage;
  assert.ok(prompt > 0 && completion > 0 && completion <= 16, JSON.stringify(answer.usage));
  assert.equal(total, prompt + completion);
  assert.equal(response.headers.get("x-request-id"), answer.id);
  assert.equal(answer._request_id, answer.id);
  return answer;
}

async function chatStream(whole) {
  const chunks = await collected(
    await client.chat.completions.create({
      model,
      messages: [{ role: "user", content: [{ type: "text", text: "Hello" }] }],
      temperature: 0,
      max_completion_tokens: 16,
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  const last = chunks.at(-1);
  const deltas = chunks.slice(0, -1);
  assert.deepEqual(last.choices, []);
  assert.deepEqual(last.usage, whole.usage);
  assert.ok(deltas.every((chunk) => chunk.usage === null));
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.deepEqual(
    deltas.map((chunk) => chunk.choices[0].delta.role),
    ["assistant", ...Array(deltas.length - 1).fill(undefined)],
  );
  const text = deltas.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(
    deltas.map((chunk) => chunk.choices[0].finish_reason),
    [...Array(deltas.length - 1).fill(null), whole.choices[0].finish_reason],
  );
}

// The client's own folding of deltas, which notices an end that is missing.
async function chatAccumulated(whole) {
  const stream = client.chat.completions.stream({ model, messages: hello, temperature: 0, max_tokens: 16 });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(await stream.finalContent(), text);
}

// A reader that stops leaves nothing behind that another request would notice.
async function abandoned() {
  const stream = await client.chat.completions.create({ model, messages: hello, max_tokens: 64, stream: true });
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    break;
  }
  assert.ok(stream.controller.signal.aborted);
}

async function completions() {
  const ask = { model, prompt: "Hello", max_tokens: 4, temperature: 0, seed: 7 };
  const whole = await client.completions.create(ask);
  assert.equal(whole.object, "text_completion");
  assert.ok(whole.usage.completion_tokens <= 4);
  const chunks = await collected(await client.completions.create({ ...ask, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.choices[0].text);
  assert.equal(chunks.at(-1).choices[0].finish_reason, whole.choices[0].finish_reason);
}

async function several() {
  const ask = { model, messages: hello, max_tokens: 4, n: 2 };
  const whole = await client.chat.completions.create(ask);
  assert.deepEqual(whole.choices.map((choice) => choice.index), [0, 1]);
  const final = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.deepEqual(final.choices.map((choice) => choice.index), [0, 1]);
  assert.ok(final.choices.every((choice) => choice.finish_reason));
}

// The tokens' bytes together are the text.
async function logprobs() {
  const ask = { model, messages: hello, max_tokens: 4, temperature: 0, logprobs: true, top_logprobs: 2 };
  const [whole] = (await client.chat.completions.create(ask)).choices;
  const tokens = whole.logprobs.content;
  assert.ok(tokens.length > 0 && tokens.length <= 4);
  for (const token of tokens) {
    assert.ok(token.logprob <= 0 && token.top_logprobs.length <= 2, JSON.stringify(token));
    const likeliest = token.top_logprobs.map((top) => top.logprob);
    assert.deepEqual(likeliest, likeliest.toSorted((a, b) => b - a));
  }
  const text = new TextDecoder().decode(Uint8Array.from(tokens.flatMap((token) => token.bytes)));
  const said = whole.message.content.replace(/\uFFFD+$/, "");
  assert.ok(whole.message.reasoning || text.startsWith(said), `${text} / ${said}`);
  const final = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.deepEqual(
    final.choices[0].logprobs.content.map((token) => token.token),
    tokens.map((token) => token.token),
  );
  const echoed = await client.completions.create({
    model, prompt: "Hello there", max_tokens: 1, logprobs: 1, echo: true,
  });
  const judged = echoed.choices[0].logprobs;
  assert.equal(judged.token_logprobs[0], null);
  assert.ok(judged.token_logprobs.slice(1).every((value) => value <= 0));
  assert.ok(echoed.choices[0].text.startsWith("Hello there"));
  assert.equal(judged.tokens.length, judged.text_offset.length);
}

// A tool may be called or not; what is called is one of the tools, with arguments that parse.
async function tools() {
  const ask = { model, max_tokens: 32, tools: [weather] };
  const messages = [{ role: "user", content: "What is the weather in Paris?" }];
  const answer = await client.chat.completions.create({ ...ask, messages });
  for (const call of answer.choices[0].message.tool_calls ?? []) {
    assert.equal(call.function.name, "weather");
    assert.equal(typeof JSON.parse(call.function.arguments), "object");
  }
  const past = { id: "abcdefghi", type: "function", function: { name: "weather", arguments: '{"city": "Paris"}' } };
  messages.push({ role: "assistant", content: null, tool_calls: [past] });
  messages.push({ role: "tool", tool_call_id: "abcdefghi", content: "sunny" });
  try {
    const { choices } = await client.chat.completions.create({ ...ask, messages });
    assert.ok(["stop", "length", "tool_calls"].includes(choices[0].finish_reason));
  } catch (refused) {
    // A model whose template knows no tools says so.
    assert.ok(refused instanceof OpenAI.BadRequestError, refused);
    assert.equal(refused.code, "invalid_prompt");
  }
}

const Answer = z.object({ ok: z.boolean(), size: z.enum(["small", "large"]) });

// For engines that follow grammars: what ends by itself is parsed and valid, what is cut is known to be.
async function structured() {
  // Enough, however much white space a weak model puts between its tokens.
  const ask = { model, messages: hello, max_tokens: 400, response_format: zodResponseFormat(Answer, "answer") };
  const whole = await client.chat.completions.parse(ask);
  assert.equal(whole.choices[0].finish_reason, "stop");
  assert.deepEqual(whole.choices[0].message.parsed, Answer.parse(JSON.parse(whole.choices[0].message.content)));
  const streamed = await client.chat.completions.stream(ask).finalChatCompletion();
  Answer.parse(streamed.choices[0].message.parsed);
  await assert.rejects(client.chat.completions.parse({ ...ask, max_tokens: 2 }), OpenAI.LengthFinishReasonError);
}

// The same: calls that are forced, whole and put together from deltas by the client.
async function forced() {
  const answer = zodFunction({ name: "answer", parameters: Answer });
  const other = zodFunction({ name: "other", parameters: Answer });
  const named = { type: "function", function: { name: "other" } };
  for (const [tool_choice, names] of [["required", ["answer", "other"]], [named, ["other"]]]) {
    const ask = {
      model, messages: hello, max_tokens: 160, tools: [answer, other], tool_choice, parallel_tool_calls: false,
    };
    const whole = await client.chat.completions.parse(ask);
    const stream = client.chat.completions.stream(ask);
    const deltas = [];
    stream.on("tool_calls.function.arguments.delta", (event) => deltas.push(event));
    for (const { choices } of [whole, await stream.finalChatCompletion()]) {
      assert.equal(choices[0].finish_reason, "tool_calls");
      const [call, ...more] = choices[0].message.tool_calls;
      assert.deepEqual(more, []);
      assert.ok(call.id && names.includes(call.function.name), JSON.stringify(call));
      assert.deepEqual(call.function.parsed_arguments, Answer.parse(JSON.parse(call.function.arguments)));
    }
    const final = (await stream.finalMessage()).tool_calls[0].function.arguments;
    assert.equal(deltas.map((event) => event.arguments_delta).join(""), final);
  }
}

// The client asks for base64 by itself; plain numbers are the same vector.
async function embeddings() {
  const ask = { model, input: ["Hello", "there"] };
  const encoded = await client.embeddings.create(ask);
  const plain = await client.embeddings.create({ ...ask, encoding_format: "float" });
  assert.deepEqual(encoded.data.map((entry) => entry.index), [0, 1]);
  assert.ok(encoded.usage.total_tokens > 0);
  for (const [index, { embedding }] of encoded.data.entries()) {
    const other = plain.data[index].embedding;
    assert.ok(embedding.length > 0 && embedding.length === other.length);
    assert.ok(embedding.every((value, place) => Math.abs(value - other[place]) < 1e-6));
    const length = embedding.reduce((sum, value) => sum + value * value, 0);
    assert.ok(Math.abs(length - 1) < 1e-3, `${length}`);
  }
}

async function models() {
  const names = (await collected(client.models.list())).map((entry) => entry.id);
  assert.ok(names.includes(model), names.join());
  assert.equal((await client.models.retrieve(model)).id, model);
}

async function errors() {
  const ask = (changes, by = client) => by.chat.completions.create({ model, messages: hello, ...changes });
  const refused = async (call, kind, expected) => {
    const error = await call.then(() => assert.fail(`no ${kind.name}`), (error) => error);
    assert.ok(error instanceof kind, error);
    for (const [field, value] of Object.entries(expected)) assert.equal(error[field], value, `${field}: ${error}`);
    assert.equal(error.type, "invalid_request_error");
  };
  await refused(ask({ model: "no-such-model" }), OpenAI.NotFoundError, {
    status: 404, code: "model_not_found", param: "model",
  });
  await refused(client.models.retrieve("no-such-model"), OpenAI.NotFoundError, { code: "model_not_found" });
  for (const [param, changes] of [
    ["n", { n: 9 }],
    ["temperature", { temperature: 3 }],
    ["tool_choice", { tools: [weather], tool_choice: "sometimes" }],
    ["response_format.type", { response_format: { type: "xml" } }],
    ["messages", { messages: [] }],
  ]) {
    await refused(ask(changes), OpenAI.BadRequestError, { status: 400, param });
    await refused(ask({ ...changes, stream: true }), OpenAI.BadRequestError, { status: 400, param });
  }
  const long = [{ role: "user", content: "word ".repeat(200_000) }];
  await refused(ask({ messages: long }), OpenAI.BadRequestError, { code: "context_length_exceeded" });
  const stranger = new OpenAI({ baseURL, apiKey: "sk-spark-wrong", maxRetries: 0 });
  await refused(ask({}, stranger), OpenAI.AuthenticationError, { status: 401, code: "invalid_api_key" });
}

const whole = await chatWhole();
await chatStream(whole);
await chatAccumulated(whole);
await abandoned();
await completions();
await several();
await logprobs();
await tools();
await embeddings();
if (grammars) {
  await structured();
  await forced();
}
await models();
await errors();
console.log(`openai-node ${VERSION}: all as it should be`);
