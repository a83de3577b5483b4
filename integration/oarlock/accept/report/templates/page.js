(() => {
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)];
  for (const element of all("[data-needs-script]")) element.hidden = false;

  const theme = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; nameTheme(); });
  nameTheme();

  const chapter = document.getElementById("chapter");
  const verdicts = all("button[data-verdict]");
  const apply = () => {
    const wanted = verdicts.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.verdict);
    const shows = (e) => (!chapter.value || e.dataset.chapter === chapter.value) && (!wanted.length || wanted.includes(e.dataset.is));
    for (const element of all("[data-is]")) element.hidden = !shows(element);
    for (const group of all("[data-group]")) group.hidden = !group.querySelector("[data-is]:not([hidden])");
    const rows = all(".board [data-is]");
    document.getElementById("shown").textContent = `${rows.filter((r) => !r.hidden).length} of ${rows.length} topics`;
  };
  chapter.addEventListener("change", apply);
  for (const button of verdicts) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      apply();
    });
  }

  const copySelected = (text) => {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.cssText = "position:fixed;opacity:0";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("copying was refused");
  };
  const copyText = (text) => (navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject())
    .catch(() => copySelected(text));
  for (const button of all("button[data-copy]")) {
    button.addEventListener("click", () => {
      const text = document.getElementById(button.dataset.copy).textContent;
      copyText(text).then(() => "Copied", () => "Select it by hand").then((word) => {
        button.textContent = word;
        setTimeout(() => { button.textContent = "Copy"; }, 1600);
      });
    });
  }
})();
