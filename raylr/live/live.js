// Keeps the page of a study up to date: asks the server for the blocks that have changed, and changes only these, so that
// the reader's place on the page, the view of a figure and the runs that are hidden in it stay.
(() => {
  const EVERY = 2000, HIDDEN = 15000, SLOWEST = 30000;
  const parts = document.getElementById("parts");
  const lost = document.getElementById("lost");
  const shown = new Map();  // id of a block -> its element
  let server = "", version = -1, ahead = 0, failed = 0, timer = 0;

  const made = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  };

  const setText = (block, {html}) => {
    const scrolled = block.querySelector(".log")?.scrollTop || 0;
    block.replaceChildren(made(html));
    if (scrolled) block.querySelector(".log")?.scrollTo(0, scrolled);
  };
  const setFigure = (block, {html, figure}) => {
    const next = made(html).querySelector("figure");
    const there = block.querySelector("figure");
    if (!there) {
      block.replaceChildren(next);
      raylrFigures.set(next, figure);
      return;
    }
    there.querySelector(".says")?.remove();
    const says = next.querySelector(".says");
    if (says) there.prepend(says);
    there.querySelector("figcaption").replaceWith(next.querySelector("figcaption"));
    raylrFigures.set(there, figure);
  };
  const remove = (block) => {
    const figure = block.querySelector("figure");
    if (figure) raylrFigures.remove(figure);
    block.remove();
  };

  const apply = (news) => {
    if (news.server !== server) {
      shown.forEach(remove);
      shown.clear();
      parts.replaceChildren();
    }
    ({server, version} = news);
    ahead = Date.now() / 1000 - news.now;
    document.title = `raylr: ${news.title}`;
    document.getElementById("name").textContent = news.title;
    const wanted = new Set(news.order);
    for (const [id, block] of shown) {
      if (!wanted.has(id)) {
        remove(block);
        shown.delete(id);
      }
    }
    news.order.forEach((id, place) => {
      let block = shown.get(id);
      if (!block) {
        block = document.createElement("div");
        block.id = `block-${id}`;
        shown.set(id, block);
      }
      if (parts.children[place] !== block) parts.insertBefore(block, parts.children[place] || null);
      const content = news.blocks[id];
      if (content) (content.figure ? setFigure : setText)(block, content);
    });
    tick();
  };

  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];
  const length = (seconds) => {
    const [size, unit] = UNITS.find(([one]) => seconds >= one) || [1, "s"];
    return `${(seconds / size).toFixed(size > 1 ? 1 : 0)} ${unit}`;
  };
  const tick = () => {
    const now = Date.now() / 1000 - ahead;  // the server's
    for (const time of document.querySelectorAll("time[data-ago]")) {
      time.textContent = length(Math.max(now - Number(time.dataset.ago), 0));
    }
    for (const time of document.querySelectorAll("time[data-clock]")) {
      time.textContent = new Date(1000 * (Number(time.dataset.clock) + ahead)).toLocaleTimeString();
    }
  };

  const ask = async () => {
    clearTimeout(timer);
    try {
      const answer = await fetch(`state?server=${server}&since=${version}`, {cache: "no-store"});
      if (!answer.ok) throw new Error(await answer.text());
      const news = await answer.json();
      failed = 0;
      lost.hidden = true;
      apply(news);
    } catch (error) {
      failed += 1;
      if (failed > 1) {
        lost.textContent = "The page is not up to date: raylr serve does not answer. It will be updated when raylr serve answers again.";
        lost.hidden = false;
      }
      if (!(error instanceof TypeError)) console.error(error);  // a TypeError: nobody answered
    }
    timer = setTimeout(ask, document.hidden ? HIDDEN : Math.min(EVERY * 2 ** Math.max(failed - 1, 0), SLOWEST));
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  setInterval(tick, 1000);
  ask();
})();
