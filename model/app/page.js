// What Gradio leaves out for those who hear the page or press keys: names, and radio buttons that
// are one group. It draws anew whatever changes, so this is done anew as well.
function complete() {
  for (const name of ["Sketch", "Reference", "Result"]) {
    const place = document.getElementById(name.toLowerCase());
    if (!place) continue;
    place.role = "group";
    place.ariaLabel = name;
    place.querySelector("button.upload-container")?.removeAttribute("aria-label"); // hides the prompt
    for (const image of place.querySelectorAll("img")) image.alt = name;
    place.closest(".column").querySelectorAll(".gallery-item").forEach((item, i) => {
      item.ariaLabel = `${name} ${i + 1}`;
    });
  }
  const method = document.getElementById("method"), said = document.getElementById("said");
  if (method) {
    method.ariaLabel = method.querySelector("span").textContent;
    for (const radio of method.querySelectorAll("input")) {
      if (radio.name !== "method") radio.name = "method";
    }
  }
  if (said) said.role = "status"; // stays while the words in it change, so they are read out
}
new MutationObserver(complete).observe(document, {
  subtree: true, childList: true, attributes: true, attributeFilter: ["name"],
});
