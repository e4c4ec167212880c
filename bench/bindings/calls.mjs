// Calls in sequence by the npm package, in Node and in a page: `calls(url, seconds)` gives calls in a second, and bytes of the large calls.
// By itself: node calls.mjs PACKAGE URL SECONDS.

export async function calls({ Tensor, connect }, url, seconds) {
  const client = await connect(url, { allowDebug: true });
  const found = {};
  for (const [name, count] of [["small", 1], ["large", 1024]]) {
    const image = new Float32Array(count * 784);
    const call = () => client.infer({ image: new Tensor(image, [count, 1, 28, 28]) });
    for (let n = 0; n < 5; n++) await call();
    let done = 0;
    const start = performance.now();
    while (performance.now() - start < seconds * 1000) {
      await call();
      done++;
    }
    found[name] = (done / ((performance.now() - start) / 1000)) * (count === 1 ? 1 : image.byteLength);
  }
  return found;
}

if (globalThis.process?.argv[2]) {
  const [, , name, url, seconds] = process.argv;
  console.log(JSON.stringify(await calls(await import(name), url, Number(seconds))));
}
